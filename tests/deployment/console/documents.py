"""What a page says, read as a person reads it: tables by their headings, forms by what they send, and the words."""

from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser

from httpx import Response

_VOID = {"meta", "link", "input", "br", "img", "hr"}


@dataclass
class Table:
    """One table: its caption, and its rows with the sum, each as a list of cells."""

    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)

    @property
    def head(self) -> list[str]:
        """What the columns are called."""
        return self.rows[0]

    def row(self, beginning: str) -> dict[str, str]:
        """The one row whose first cell begins so: heading to cell."""
        (found,) = (row for row in self.rows[1:] if row[0].startswith(beginning))
        return dict(zip(self.head, found, strict=True))


@dataclass
class Form:
    """One form: where it sends what."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Document(HTMLParser):
    """A page; `of` reads an answer.

    Attributes:
        tables: all of them, in their order.
        forms: likewise.
        links: the addresses that it leads to.
        items: the texts of its lists' items.
        words: everything that it says, with single spaces.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.items: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.words = " ".join(self.words.split())

    @classmethod
    def of(cls, answer: Response, status: int = 200) -> "Document":
        """The page of an answer that has this status."""
        assert status == answer.status_code, answer.text
        assert "text/html" in answer.headers["content-type"]
        return cls(answer.text)

    def table(self, caption: str) -> Table:
        """The one table whose caption begins so."""
        (found,) = (table for table in self.tables if table.caption.startswith(caption))
        return found

    def form(self, action: str) -> Form:
        """The one form that sends to an address that ends so."""
        (found,) = (form for form in self.forms if form.action.partition("#")[0].endswith(action))
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(Table())
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in {"td", "th"}:
            self.tables[-1].rows[-1].append("")
        elif tag == "form":
            self.forms.append(Form(given["action"], given["method"]))
        elif tag == "li":
            self.items.append("")
        elif tag == "a":
            self.links.append(given["href"])
        elif tag == "input" and self.forms and "name" in given and given.get("type") != "checkbox":
            self.forms[-1].fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop(), f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"
        if "li" in self._open:
            self.items[-1] = " ".join(f"{self.items[-1]} {data}".split())
        if "table" not in self._open:
            return
        table = self.tables[-1]
        if "caption" in self._open:
            table.caption = f"{table.caption} {data}".strip()
        elif table.rows and table.rows[-1]:
            table.rows[-1][-1] = " ".join(f"{table.rows[-1][-1]} {data}".split())


def minor(text: str, digits: int = 2) -> int:
    """Minor units of an amount as pages write it, with or without its currency, sign and symbol."""
    number = text.partition(" EUR")[0].lstrip("▲▼= +").replace("−", "-").replace(",", "")
    return int(Decimal(number).scaleb(digits))


def micro(text: str) -> int:
    """Micro-credits of an amount of tokens."""
    return minor(text, 6)
