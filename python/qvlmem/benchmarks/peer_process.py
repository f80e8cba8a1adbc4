# SPDX-License-Identifier: Apache-2.0
"""The process that runs the peers, as the one that measures sees it."""

import json
import os
import pathlib
import subprocess
import tempfile

import torch


class PeerFailed(Exception):
    """A peer does not work here; the message says why."""


class PeerProcess:
    """peers.py, run by the Python of the environment in `folder`. Closed when the `with` block ends.

    names: {key: {name: dtypes}}; missing: {package: why}. After a failure of the process itself names is empty.
    """

    def __init__(self, folder):
        script = pathlib.Path(__file__).with_name('peers.py')
        # Without names, so that nothing is left of them, however this process ends.
        self._values, self._errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        # It finds what lies beside it, whatever this process was told of where to look.
        environment = os.environ | {'PYTHONPATH': str(script.parent)}
        self._process = subprocess.Popen([folder / 'bin' / 'python', script], stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, stderr=self._errors, env=environment,
                                         pass_fds=(self._values.fileno(),))
        description = self._ask(do='describe')
        self.names, self.missing = description['names'], description['missing']

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._values.close()
        self._errors.close()

    def _ask(self, **request):
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            self.names = {}
            self._errors.seek(0)
            last = self._errors.read().decode(errors='replace').strip().rpartition('\n')[2]
            raise PeerFailed(f"the process ended at {request['do']}: {last}") from None
        if 'failed' in answer:
            raise PeerFailed(answer['failed'])
        return answer

    def load(self, x):
        """Hands over the tensor that the peers are to take."""
        self._values.seek(0)
        self._values.truncate()
        self._values.write(x.contiguous().view(-1).view(torch.uint8).cpu().numpy())
        self._values.flush()
        self._ask(do='load', path=f'/dev/fd/{self._values.fileno()}', dtype=str(x.dtype).removeprefix('torch.'),
                  shape=list(x.shape), device=str(x.device))

    def open(self, key, name):
        """Has a peer encode and decode once. Returns the bytes that it keeps and its relative error."""
        answer = self._ask(do='open', key=key, name=name)
        return answer['bytes'], answer['error']

    def seconds(self, name, direction, clock, calls):
        """With as many threads as PyTorch has here."""
        return self._ask(do='time', name=name, direction=direction, calls=calls, clock=clock,
                         threads=torch.get_num_threads())['seconds']
