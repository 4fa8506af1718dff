"""The operator's API requests for one FineTuneJob, counted in the audit log of the local cluster."""

from bench.audit_trail import COUNTED, Life, Request, lives, read
from bench.cluster import RUN_THE_DEMO, local_cluster
from bench.report import Figure, NotMeasurable, Report
from demo.install import RELEASE
from demo.story import FIRST_JOB, SECOND_JOB
from demo.target import NAMESPACE

OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
JOBS = (FIRST_JOB, SECOND_JOB)
MOST_WRITES = 5
PROGRESS_SECONDS = 10.0


def measure() -> Report:
    """The last finished life of each of the demo's jobs; raises NotMeasurable where the log has none."""
    log = local_cluster().audit_log
    if not log.exists():
        raise NotMeasurable(f"{log} is missing: {RUN_THE_DEMO}")
    ended = [life for life in lives(read(log), OPERATOR) if life.namespace == NAMESPACE and life.name in JOBS]
    if not ended:
        raise NotMeasurable(f"{log} has no end of {' or '.join(JOBS)}: {RUN_THE_DEMO}")
    latest = {life.name: life for life in ended}
    figures = [figure for life in latest.values() for figure in figures_of(life)]
    return Report(
        tuple(figures),
        (
            f"{len(ended)} finished jobs in the log, oldest first, had {[life.writes for life in ended]} such writes; "
            "the table has the latest of each name",
            "a job with spec.evaluation has one more: that it is trained, and now being measured",
            "lists not made by a watch are the operator's comparison of its memory with the API server, one in 10 "
            "minutes whatever the number of jobs; a job shows them where it was under way at that time",
        ),
    )


def figures_of(life: Life) -> list[Figure]:
    """The split of one job's requests."""
    how = f"audit log, user {OPERATOR.rsplit(':', 1)[1]}"
    figures = [
        Figure(
            f"{life.name}: writes but progress and events",
            str(life.writes),
            how,
            f"<= {MOST_WRITES}",
            life.writes <= MOST_WRITES,
        ),
        *(Figure(f"{life.name}:   {kind}", str(life.requests[kind]), how) for kind in COUNTED),
        Figure(f"{life.name}: {Request.PROGRESS}", str(life.requests[Request.PROGRESS]), how),
    ]
    if (distance := life.smallest_progress_distance_seconds) is not None:
        goal = f">= {PROGRESS_SECONDS:.0f} s"
        name = f"{life.name}:   smallest distance of two"
        figures.append(Figure(name, f"{distance:.2f} s", how, goal, distance >= PROGRESS_SECONDS))
    reads = life.requests[Request.READ_OBJECT]
    return [
        *figures,
        Figure(f"{life.name}: {Request.EVENT}", str(life.requests[Request.EVENT]), how),
        Figure(f"{life.name}: {Request.READ_OBJECT}", str(reads), how, "0", reads == 0),
        Figure(f"{life.name}: {Request.READ_LIST}", str(life.requests[Request.READ_LIST]), how),
    ]
