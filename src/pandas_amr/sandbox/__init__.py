"""Where code that a model wrote runs: the port, the embedded sandbox, a container's.

======================  =======================================================================================
tier                    what is in force
======================  =======================================================================================
``strong``              a root of its own without /proc, /etc or homes; user, mount, pid, net, ipc, uts and
                        cgroup namespaces; a private scratch with a quota; limits; no capability; Landlock; an
                        allow-list of system calls
``strict-lite``         limits, Landlock, the allow-list of calls; another user where root began it; nothing can
                        be written
``process``             a process of its own with a clean environment, limits and a folder that goes with it.
                        Only when asked for by name: code can read and write what the user can
======================  =======================================================================================

What ``strict-lite`` leaves open: names, sizes and times of files can be looked up (not their contents); the host's
name, load and process numbers can be seen; threads are counted together with those of the user's other processes.
A Python that lives in root's home is read with the one capability to read, within Landlock's folders.
"""
