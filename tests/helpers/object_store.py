"""A small local stand-in of S3: listing (ListObjectsV2), HEAD and GET of one bucket."""

from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from local_server import LocalServer, QuietHandler


class ObjectStore(LocalServer):
    """Serves `objects`, key -> content; `refused` keys are answered with 403."""

    def __init__(self, bucket: str) -> None:
        super().__init__(Handler)
        self.bucket, self.objects, self.refused = bucket, {}, set()
        address = f"127.0.0.1%3A{self.server_port}"
        self.options = f"scheme=http&endpoint_override={address}&region=none"

    def uri(self, prefix: str) -> str:
        return f"s3://key:secret@{self.bucket}/{prefix}?{self.options}"


class Handler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        if bucket != self.server.bucket:
            status, body = 404, error("NoSuchBucket")
        elif key in self.server.refused:
            status, body = 403, error("AccessDenied")
        elif not key:
            status, body = 200, self.listing(parse_qs(address.query))
        elif key in self.server.objects:
            status, body = 200, self.server.objects[key]
        else:
            status, body = 404, error("NoSuchKey")
        date = "Mon, 01 Jan 2024 00:00:00 GMT"
        self.answer(status, {"content-type": "application/xml", "last-modified": date}, body)

    do_HEAD = do_GET

    def listing(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        keys = sorted(key for key in self.server.objects if key.startswith(prefix))
        objects = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        return (
            f"<ListBucketResult><Name>{self.server.bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>{objects}"
            "</ListBucketResult>"
        ).encode()


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
