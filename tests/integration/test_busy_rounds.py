"""A second delivery of a job that another one is at work on waits in few rounds until that one's lease is over."""

from dataclasses import dataclass, field

from captions.queues import Job, Revisit
from support.worker import Workshop


@dataclass
class Delays:
    """A queue that keeps how long each message is delayed."""

    seconds: list[float] = field(default_factory=list)

    def send(self, queue_url: str, message: Job | Revisit, *, delay: float = 0) -> None:
        self.seconds.append(delay)


def test_the_rounds_of_a_long_lease_are_few_and_end_with_it(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    clock = shop.dedupe.clock
    lease_until = clock() + 306.0
    shop.dedupe.records.begin(job.upload, now=clock(), lease_until=lease_until)
    delays = Delays()
    shop.worker.queues = delays  # type: ignore[assignment]
    while clock() < lease_until:
        assert shop.run(job) == "deferred"
        clock.at += delays.seconds[-1]
    assert len(delays.seconds) < 12
    assert clock() < lease_until + 5
    clock.at += 1
    assert shop.run(job) == "captioned"
