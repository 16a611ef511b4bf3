"""XMP sidecars: the tags as keywords, as Lightroom, digiKam and darktable read them beside a picture."""

import re
import zipfile
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from vlm.formats.base import ExportContext, ExportFormat, ExportRow
from vlm.formats.export.archive import NO_DATE, Sink

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def name_of(path: str) -> str:
    """Return the sidecar of a picture: its whole name with ``.xmp`` behind, so that a.jpg and a.png have one each."""
    return f"{path}.xmp"


def packet(row: ExportRow) -> bytes:
    """Return a sample's tags as XMP: flat keywords, “dimension|word” as a hierarchy, and the sample's id."""
    flat = dict.fromkeys(tag.tag for tag in row.tags)
    deep = dict.fromkeys(f"{tag.dimension}|{tag.tag}" if tag.dimension else tag.tag for tag in row.tags)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:datavisor="https://datavisor.invalid/ns/1.0/"'
        f' datavisor:id="{row.id}">\n'
        f"{_bag('dc:subject', flat)}{_bag('lr:hierarchicalSubject', deep)}"
        "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n"
        '<?xpacket end="w"?>\n'
    ).encode()


def _bag(name: str, words: Iterable[str]) -> str:
    listed = "".join(f"     <rdf:li>{escape(_NOT_XML.sub('', word))}</rdf:li>\n" for word in words)
    return f"   <{name}>\n    <rdf:Bag>\n{listed}    </rdf:Bag>\n   </{name}>\n"


def _xmp(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a zip of sidecars under the pictures' own paths; the command ``write_sidecars`` puts them beside the pictures."""
    sink = Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            archive.writestr(zipfile.ZipInfo(name_of(row.path), NO_DATE), packet(row), zipfile.ZIP_DEFLATED)
            yield sink.take()
    yield sink.take()


FORMAT = ExportFormat(
    "xmp",
    "a zip of XMP sidecars: tags as keywords, flat and in their dimension, with the image's id",
    "application/zip",
    ".zip",
    _xmp,
)
