"""The throttle: as fast as a server admits, and no faster; one per server, key and model.

It wraps the HTTP call, below agents, reducers and retries, and the whole process shares it. Three
things hold a request back:

1. A window over the requests in flight. It doubles while it can, then grows by one per round, and
   halves if the server says 429 (additive increase, multiplicative decrease: Chiu and Jain 1989;
   slow start: Jacobson 1988).
2. Token buckets for requests and tokens per minute. Their rates are given by the user, or learned
   from ``x-ratelimit-*`` headers or from the 429s themselves.
3. Pauses that the server asks for, or that a server which is gone makes necessary.

No learned limit blocks for long. What is left by the headers may be sent now, whatever the rate. If
a server says 429 although its headers leave room, the 429s count. A learned rate admits at least
one request per minute. No request waits for its place longer than the patience with a server that
answers nothing.
"""
