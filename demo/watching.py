"""`kubectl get -w` of the kinds that the story makes, shown while it goes on."""

import subprocess
import threading
from types import TracebackType

from demo.console import Narrator
from demo.kubectl import Kubectl

KINDS = ("finetunejobs", "modelversions", "abtests")


class LiveView:
    """One `kubectl get KIND -w` a kind, since kubectl watches one kind at a time; lines appear as they come."""

    def __init__(self, kubectl: Kubectl, narrator: Narrator) -> None:
        self._kubectl = kubectl
        self._narrator = narrator
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "LiveView":
        for kind in KINDS:
            self._narrator.command(f"kubectl get {kind} -w")
            command = [self._kubectl.program, "--namespace", self._kubectl.namespace, "get", kind, "--watch"]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self._kubectl.environment()
            )
            self._processes.append(process)
            threading.Thread(target=self._show, args=(process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()

    def _show(self, process: "subprocess.Popen[str]") -> None:
        previous: list[str] = []
        for line in process.stdout or ():
            # The last column is the age, which alone is no news.
            if (news := line.split()[:-1]) != previous:
                self._narrator.say(f"  | {line.rstrip()}")
            previous = news
