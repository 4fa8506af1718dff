"""What the steps of a training take and cost: on the device that the job asks for, and on others.

The work is known since the preflight; prices are the installation's. Nothing here is a promise: times are ranges, and
what is not known is absent, with a reason. As soon as the training runs, its measured pace says more
(`status.progress.eta`, `status.cost.estimated`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from finetune_operator.contract.preflight import Preflight, Work
from finetune_operator.core.accelerators import (
    APPLE,
    CPU_CORE_TFLOPS,
    GPUS,
    Accelerator,
    gpu,
    gpu_memory_gib,
    named,
)
from finetune_operator.core.cost import (
    CPU,
    GPU,
    GPU_TYPE_LABEL,
    SECONDS_PER_HOUR,
    NoPrice,
    PriceBook,
    hourly_rate,
    provider_basis,
)
from finetune_operator.core.durations import short_duration
from finetune_operator.core.quantities import number
from finetune_operator.core.remote_training import cost as remote_cost
from finetune_operator.core.training_time import Device, cpu_device, gpu_device, seconds_of
from finetune_operator.resources.common import ResourceRequirements, Scheduling

UNKNOWN_SIZE = (
    "the base model's size is not known, since its config.json is of no dense decoder of Llama's shape: try "
    "training.maxSteps 10 first, whose status.progress tells pace and memory"
)
UNKNOWN_LENGTHS = "the rows' lengths are not known: the job's preparation counts them before it trains"
UNKNOWN_REMOTE_TIME = "a provider's time is not known: status.progress.eta has it once the provider tells it"
UNKNOWN_REMOTE_TOKENS = "the tokens are not known until the rows are: the job's preparation counts them"
# A short list for a status: those that people compare.
COMPARED = ("T4", "V100-32GB", "A10", "L4", "A100-80GB", "H100", "H200", "B200")
COMPARED_CPU_CORES = 16


@dataclass(frozen=True)
class Range:
    """Seconds, or an amount of money."""

    least: Decimal
    most: Decimal


@dataclass(frozen=True)
class Estimate:
    """`unknown` says why time or cost are absent."""

    device: str
    memory_gib: int | None = None
    fits: str | None = None
    seconds: Range | None = None
    cost: Range | None = None
    currency: str | None = None
    unknown: str | None = None


@dataclass(frozen=True)
class Spread:
    """From the least to the most over the types of GPUs; `cost` is absent where none has a price."""

    seconds: Range
    fastest: Estimate
    cost: Range | None
    cheapest: Estimate | None
    currency: str


def estimate_of_job(
    found: Preflight, resources: ResourceRequirements, scheduling: Scheduling, prices: PriceBook
) -> Estimate:
    """On what its pods ask for; each GPU of each pod has a process of its own."""
    label = scheduling.node_selector.get(GPU_TYPE_LABEL)
    try:
        amounts = {name: number(amount) for name, amount in {**resources.limits, **resources.requests}.items()}
    except ValueError as error:
        return Estimate("unknown", unknown=f"{error}: correct spec.resources in a new job")
    gpus, cores = amounts.get(GPU, Decimal(0)), amounts.get(CPU, Decimal(0))
    pods = max(Decimal(1), (found.work.processes if found.work else 1) / max(gpus, Decimal(1)))
    if gpus:
        known = gpu(label)
        name = _several(label or "GPU", pods * gpus)
        memory = gpu_memory_gib(label)
        if known is None:
            which = f"the speed of {label} is not known" if label else "the job names no GPU type"
            unknown = f"{which}: a nodeSelector {GPU_TYPE_LABEL} with a type that `finetune-operator estimate` lists"
            return Estimate(name, memory, fits(found, memory), unknown=unknown)
        device: Device = gpu_device(known.peak_tflops)
    elif any("/" in name and amount for name, amount in amounts.items()):
        return Estimate("unknown", unknown="the speed of such a device is not known")
    elif cores:
        name, memory = _several(f"{cores.normalize():f} CPU cores", pods), None
        device = cpu_device(float(cores) * CPU_CORE_TFLOPS)
    else:
        return Estimate("unknown", unknown="the job asks for neither a GPU nor cpu: set spec.resources.requests.cpu")
    rate = hourly_rate(resources, scheduling, prices)
    per_hour = rate if isinstance(rate, NoPrice) else rate.per_hour * pods
    return _estimate(name, memory, device, found, per_hour, prices.currency)


def estimate_at_provider(model: str, tokens: int | None, prices: PriceBook) -> Estimate:
    """What the provider is likely to bill; its machines, their memory and their pace are its own."""
    name = f"{model} at its provider"
    basis = provider_basis(model, prices)
    if isinstance(basis, NoPrice):
        return Estimate(name, unknown=basis.message)
    amount = remote_cost(tokens, prices.per_million_tokens[model])
    if amount is None:
        return Estimate(name, unknown=UNKNOWN_REMOTE_TOKENS)
    return Estimate(name, cost=Range(amount, amount), currency=prices.currency)


def compared(found: Preflight, prices: PriceBook) -> tuple[Estimate, ...]:
    """As many GPUs of each type that people compare as the training has processes."""
    return tuple(_on(each, found, prices) for each in named(COMPARED))


def on_any_gpu(found: Preflight, prices: PriceBook) -> Spread | None:
    """What a training comes to that takes whatever GPU there is; None where no known type tells its time.

    A type without a price of its own has the general one of GPUs, by which such a training is billed.
    """
    general = prices.per_hour.get(GPU)
    known = [_on(each, found, prices, general) for each in GPUS if each.memory_gib is not None]
    timed = [(each, each.seconds, each.cost) for each in known if each.seconds]
    fitting = [one for one in timed if one[0].fits != "Unlikely"] or timed
    if not fitting:
        return None
    priced = [(each, cost) for each, _, cost in fitting if cost]
    return Spread(
        seconds=_around(seconds for _, seconds, _ in fitting),
        fastest=min(fitting, key=lambda one: one[1].most)[0],
        cost=_around(cost for _, cost in priced) if priced else None,
        cheapest=min(priced, key=lambda one: one[1].most)[0] if priced else None,
        currency=prices.currency,
    )


def all_known(found: Preflight, prices: PriceBook) -> Iterable[Estimate]:
    """Every type that is known, one piece for each process, and a CPU."""
    for each in GPUS:
        if each.memory_gib is not None:
            yield _on(each, found, prices)
    for each in APPLE:
        yield _times(each.name, None, gpu_device(each.peak_tflops), found, NoPrice(f"no price for {each.name}"), prices)
    cores = COMPARED_CPU_CORES
    per_core = prices.per_hour.get(CPU)
    price = NoPrice(f"no price for {CPU}: set prices.perHour.{CPU}") if per_core is None else per_core * cores
    yield _times(f"{cores} CPU cores", None, cpu_device(cores * CPU_CORE_TFLOPS), found, price, prices)


def fits(found: Preflight, memory_gib: int | None) -> str | None:
    """`No` is certain, the other two follow from an estimate; None where nothing is known."""
    if memory_gib is None or found.memory_gib is None or found.least_memory_gib is None:
        return None
    if found.least_memory_gib > memory_gib:
        return "No"
    return "Unlikely" if found.memory_gib > memory_gib else "Likely"


def shown_time(seconds: Range) -> str:
    return f"{short_duration(round(seconds.least))} to {short_duration(round(seconds.most))}"


def shown_cost(cost: Range, currency: str | None) -> str:
    amounts = dict.fromkeys((rough(cost.least), rough(cost.most)))
    return f"{' to '.join(amounts)} {currency or ''}".strip()


def rough(money: Decimal) -> str:
    """Cents, as far as there are some: an estimate has no more to tell."""
    return f"{money.quantize(Decimal('0.01') if money >= Decimal('0.1') else Decimal('0.0001'), ROUND_HALF_UP):f}"


def _around(ranges: Iterable[Range]) -> Range:
    found = tuple(ranges)
    return Range(min(each.least for each in found), max(each.most for each in found))


def _on(accelerator: Accelerator, found: Preflight, prices: PriceBook, general: Decimal | None = None) -> Estimate:
    """By the lowest price of the book's types that are such a GPU: a general price of GPUs says nothing of this one."""
    fitting = [price for label, price in prices.gpu_types.items() if gpu(label) == accelerator]
    known = min(fitting, default=general)
    price = NoPrice(f"no price: set one of a type {accelerator.name} in prices.gpuTypes") if known is None else known
    return _times(accelerator.name, accelerator.memory_gib, gpu_device(accelerator.peak_tflops), found, price, prices)


def _times(
    name: str, memory: int | None, device: Device, found: Preflight, price: Decimal | NoPrice, prices: PriceBook
) -> Estimate:
    """One for each process."""
    processes = found.work.processes if found.work else 1
    for_all = price if isinstance(price, NoPrice) else price * processes
    return _estimate(_several(name, Decimal(processes)), memory, device, found, for_all, prices.currency)


def _several(name: str, count: Decimal) -> str:
    return f"{count.normalize():f} x {name}" if count > 1 else name


def _estimate(
    name: str, memory: int | None, device: Device, found: Preflight, price: Decimal | NoPrice, currency: str
) -> Estimate:
    fit = fits(found, memory)
    if found.work is None:
        unknown = UNKNOWN_SIZE if found.parameters_billion is None else UNKNOWN_LENGTHS
        return Estimate(name, memory, fit, unknown=unknown)
    if fit == "No":
        return Estimate(name, memory, fit, unknown="it does not fit")
    seconds = _seconds(found.work, device)
    if isinstance(price, NoPrice):
        return Estimate(name, memory, fit, seconds, unknown=price.message)
    cost = Range(*(each * price / SECONDS_PER_HOUR for each in (seconds.least, seconds.most)))
    return Estimate(name, memory, fit, seconds, cost, currency)


def _seconds(work: Work, device: Device) -> Range:
    return Range(*(Decimal(str(round(each, 3))) for each in seconds_of(work, device)))
