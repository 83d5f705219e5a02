"""Run code of a model: the port, the embedded sandbox, a sandbox in a container.

===============  ===================================================================================
tier             isolation
===============  ===================================================================================
``strong``       a separate root without /proc, /etc or homes; user, mount, pid, net, ipc, uts and
                 cgroup namespaces; a private scratch folder with a quota; limits; no capability;
                 Landlock; an allow-list of system calls
``strict-lite``  limits, Landlock, the allow-list of calls; another user if root started it; no file
                 can be written
``process``      a separate process with a clean environment, limits and a temporary folder. Only if
                 requested by name: code can read and write what the user can
===============  ===================================================================================

``strict-lite`` leaves open: names, sizes and times of files are visible (not their contents), and
so are the host's name, load and process numbers; threads are counted together with those of the
user's other processes. A Python in root's home is read by the one capability to read, within the
folders that Landlock allows.
"""
