"""The plan of a run, and the call that it is derived from: checked before anything is paid for.

- A call: ``call`` (as the user wrote it, and as a job), ``arguments`` (read), ``checks`` (against
  the frame and the types), ``call_text`` (written out again, for errors).
- A plan: ``plan``, ``plan_types`` (its fields as JSON), ``plan_problems`` (its errors),
  ``defaults`` (what nobody said).
- A planner: ``planner`` (asks), ``answer`` (its form), ``answer_plan`` and ``answer_fields`` (the
  plan that is made of it).
- A reduce by pandas: ``aggregations`` (how they are named), ``compute``, ``compute_column``,
  ``compute_groups``, ``outputs`` (the form of the answer).
- Trying it on a few rows: ``feasibility``, ``sample_rows``, ``output_fit``.
"""
