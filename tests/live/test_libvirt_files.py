"""The domain XML files of libvirt's own tests, and mutations of them, through all that reads XML."""

from __future__ import annotations

import gc
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from nicplug_xml import NicplugError, to_extended, to_stock, validate
from nicplug_xml._schema_files import grammar, libvirt_directory
from nicplug_xml._schema_walk import walk
from nicplug_xml.checks import check
from nicplug_xml.document import decode
from nicplug_xml.stock import interfaces_of, parse_domain
from tests.libvirt_sources import SourcesError, domain_files, libvirt_source

# While tests are collected the machine's own network is there; later they may be in a namespace without one.
try:
    libvirt_source()
    MISSING = ""
except (SourcesError, OSError) as error:
    MISSING = f"libvirt's source package cannot be had: {error}"
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "it is there")

#: Why an interface of libvirt's tests may not have the attribute.
REFUSALS = (
    "cannot be plugged: there the guest's device is the backend",
    "cannot plug in type ",
    "does not tell its guest when the carrier goes",
    "has one queue for a NIC",
    "cannot carry out <",
)

EXAMPLES, EACH = 500, 20
SECONDS_FOR_ONE = 5
#: What a megabyte of documents may leave behind at most, in caches that fill up.
GROWTH = 24 << 20


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    """The files and their texts."""
    found = {path: decode(path.read_bytes())[0] for path in domain_files()}
    assert len(found) > 2000
    return found


@pytest.fixture(scope="module")
def stock_schema() -> etree.RelaxNG:
    """libvirt's own schema, without anything of ours."""
    directory = libvirt_directory()
    assert directory is not None
    return etree.RelaxNG(etree.parse(directory / "domain.rng"))


def parsed(text: str) -> etree._Element:
    return etree.fromstring(text.encode(), etree.XMLParser(encoding="utf-8"))


def canonical(text: str) -> bytes:
    return bytes(etree.tostring(parsed(text), method="c14n"))


def with_deferred(text: str, refused: Counter[str]) -> tuple[str, int]:
    """Put the attribute on every interface that may have it; return the text and how many they are."""
    count = 0
    for number in range(len(list(interfaces_of(parse_domain(text).root)))):
        document = parse_domain(text)
        document.set_attribute(list(interfaces_of(document.root))[number], "connection", "deferred")
        try:
            to_stock(document.edited())
        except NicplugError as error:
            refused[next((why for why in REFUSALS if why in str(error)), str(error))] += 1
        else:
            text, count = document.edited(), count + 1
    return text, count


def test_without_the_attribute_nothing_is_changed(texts: dict[Path, str]) -> None:
    for path, text in texts.items():
        assert to_stock(text) == text, path
        assert to_extended(text) == text, path


def test_with_the_attribute_on_all_that_may_have_it(
    texts: dict[Path, str], stock_schema: etree.RelaxNG
) -> None:
    deferred, refused, documents = 0, Counter[str](), 0
    for path, given_text in texts.items():
        text, count = with_deferred(given_text, refused)
        if not count:
            continue
        deferred, documents = deferred + count, documents + 1
        stock = to_stock(text)
        # Some of libvirt's tests are there to be invalid.
        if stock_schema.validate(parsed(given_text)):
            assert validate(text) == [], path
            assert stock_schema.validate(parsed(stock)), (path, stock_schema.error_log)
        assert "connection=" not in re.sub("<metadata>.*?</metadata>", "", stock, flags=re.DOTALL), path
        assert canonical(to_extended(stock)) == canonical(text), path
    assert deferred > 650
    assert documents > 350
    assert set(refused) == set(REFUSALS), "another reason, or one that no file has"


def test_what_is_explained_is_what_libxml2_refuses(texts: dict[Path, str]) -> None:
    domain, invalid = grammar("domain"), 0
    for path, text in texts.items():
        root = parsed(text)
        accepted = domain.accepts(root)
        assert bool(walk(root, domain.pattern)) is not accepted, path
        invalid += not accepted
        problems = validate(text)
        assert bool(problems) is not accepted, path
        for problem in problems:
            assert problem.line, path
            assert problem.column, path
            assert "failed to validate" not in problem.message, path
    assert invalid > 20


_TAG = re.compile(r"<[^>]*>")
_VALUE = re.compile(r"=\s*('[^']*'|\"[^\"]*\")")
_WORDS = (
    "",
    "deferred",
    "attached",
    "bridge",
    "hostdev",
    "-1",
    "99999999999999999999",
    "\u00fc",
    "\U0001f980",
    "&amp;",
)


def _cut(text: str, rng: random.Random) -> str:
    start = rng.randrange(len(text) + 1)
    return text[:start] + text[start + rng.randrange(1, 40) :]


def _insert(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    junk = rng.choice(
        ("<", ">", "&", "'", "]]>", "<!--", "<![CDATA[", "<?x?>", "\0", "\ud800", "<a/>", "text", "\ufeff")
    )
    return text[:at] + junk + text[at:]


def _tag(text: str, rng: random.Random) -> str:
    """Leave a tag out, or write it twice, or elsewhere: what comes of it is seldom well-formed."""
    tags = list(_TAG.finditer(text))
    if not tags:
        return text
    one, other = rng.choice(tags), rng.choice(tags)
    return text[: one.start()] + rng.choice(("", one[0] * 2, other[0])) + text[one.end() :]


def _value(text: str, rng: random.Random) -> str:
    """Give an attribute another value."""
    values = list(_VALUE.finditer(text))
    if not values:
        return text
    one = rng.choice(values)
    value = rng.choice((*(f"'{word}'" for word in _WORDS), rng.choice(values)[1]))
    return f"{text[: one.start()]}={value}{text[one.end() :]}"


def _element(text: str, rng: random.Random) -> str:
    """Move, drop, double or rename an element: it stays well-formed."""
    try:
        root = parsed(text)
    except (etree.XMLSyntaxError, ValueError):
        return text
    elements = list(root.iter("*"))
    one, other = rng.choice(elements), rng.choice(elements)
    change = rng.randrange(5)
    if change == 0:
        one.tag = rng.choice((other.tag, "interface", "backend", f"{one.tag}x"))
    elif change == 1:
        one.attrib.update(other.attrib)
    elif change == 2:
        one.text = rng.choice((*_WORDS, other.text))
    elif one.getparent() is not None and other not in one.iter():
        if change == 3:
            other.append(one)
        else:
            one.getparent().remove(one)
    return etree.tostring(root, encoding="unicode")


def _attribute(text: str, _rng: random.Random) -> str:
    """Make the interfaces pluggable."""
    return text.replace("<interface ", f"<interface connection='{_rng.choice(('deferred', 'attached'))}' ")


MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (
    *(_cut, _insert, _tag),
    *(_value, _element, _element, _element, _attribute, _attribute),
)


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Raise, also out of a loop that would never end."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it hangs: more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def put_through(text: str) -> None:
    """Have everything read a document; a document that is refused is refused in words."""
    problems = validate(text)
    assert all(problem.message and problem.path for problem in problems)
    # That would be libxml2 talking: nothing was found to explain.
    assert not any(" failed to validate " in problem.message for problem in problems)
    data = text.encode("utf-8", "surrogatepass")
    if not problems:
        root = etree.fromstring(data)
        assert not walk(root, grammar(root.tag).pattern), "libxml2 accepts it"
    check([("a", data), ("b", data)], "auto")
    try:
        stock = to_stock(text)
        extended = to_extended(stock)
    except NicplugError:
        return
    # libxml2 has no canonical form for relative namespaces and the like.
    with suppress(etree.C14NError):
        assert problems or canonical(extended) == canonical(text)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_mutations_neither_crash_nor_hang(texts: dict[Path, str]) -> None:
    # Of the largest ones a few would take all the time.
    documents = [text for text in texts.values() if len(text) < 6000]
    with_nics = [text for text in documents if "<interface " in text]
    seen, sizes, started = 0, [resident()], time.monotonic()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.integers(min_value=0, max_value=(1 << 64) - 1))
    def mutate(seed: int) -> None:
        nonlocal seen
        rng = random.Random(seed)
        for _ in range(EACH):
            text = rng.choice(with_nics if rng.random() < 0.6 else documents)
            for _ in range(rng.choice((1, 1, 2, 4))):
                text = rng.choice(MUTATIONS)(text, rng)
            with no_longer_than(SECONDS_FOR_ONE):
                put_through(text)
            seen += 1
        sizes.append(resident() if seen % 1000 == 0 else sizes[-1])

    mutate()
    assert seen >= EXAMPLES * EACH
    middle, last = sizes[len(sizes) // 2], sizes[-1]
    growth = f"{(middle - sizes[0]) >> 20} MB, then {(last - middle) >> 20} MB"
    seconds = time.monotonic() - started
    print(f"{seen} mutated documents in {seconds:.0f} s: memory grew by {growth}")
    assert last - middle < GROWTH, growth
