"""Attack the sandbox of this machine: ``python -m pandas_amr.sandbox.conformance strong``."""

from pandas_amr.sandbox.conformance.report import main

raise SystemExit(main())
