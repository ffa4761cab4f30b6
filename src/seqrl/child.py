"""`python -P -m seqrl.child PARENT MODULE [ARGUMENTS]`: runs a module in a process that ends with its parent.

It binds itself before anything of size is imported, since importing torch may take longer than a user waits before
he kills a command. See `seqrl.processes.bound_command`.
"""

import runpy
import sys

from seqrl.processes import bind_to

if __name__ == "__main__":
    bind_to(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
