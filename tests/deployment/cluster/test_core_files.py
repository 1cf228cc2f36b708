"""Processes of the service leave no core file."""

import subprocess
import sys


def test_neither_a_process_nor_what_it_starts_leaves_a_core_file():
    """The limit of both is none, whatever it was before."""
    program = (
        "import resource, subprocess, sys\n"
        "from deployment.cluster.core_files import forbid_core_files\n"
        "forbid_core_files()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import resource; print(resource.getrlimit(4)[0])'], check=True)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ["0", "0"] == told.stdout.split()
