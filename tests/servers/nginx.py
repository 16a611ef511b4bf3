"""nginx with the site of ``deploy/nginx.conf``, on loopback, with a certificate that it was given for the day."""

import datetime
import os
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.children import PATIENCE, ROOT, wait_for
from tests.ports import reserved

SITE = ROOT / "deploy" / "nginx.conf"
NAME = "tags.example.org"

AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Nginx:
    """A process of nginx in front of servers at these ports."""

    def __init__(self, folder: Path, *servers: int) -> None:
        self.folder = folder
        self.certificate, key = certify(folder)
        self._reserved = [reserved() for _ in range(2)]
        self.plain_port, self.port = (one.getsockname()[1] for one in self._reserved)
        self.write_site(*servers, key=key)
        user = "user root root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
        self.command = [str(program()), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]

    def write_site(self, *servers: int, key: Path) -> None:
        """Write the site as it is, but for ports and for where the certificate lies."""
        upstream = " ".join(f"server 127.0.0.1:{port};" for port in servers)
        changes = {
            "server 127.0.0.1:8000;": upstream,
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
            "listen [::]:80;": "",
            "listen [::]:443 ssl http2;": "",
            f"/etc/ssl/certs/{NAME}.pem": str(self.certificate),
            f"/etc/ssl/private/{NAME}.key": str(key),
        }
        text = SITE.read_text()
        for there, here in changes.items():
            assert there in text
            text = text.replace(there, here)
        (self.folder / "site.conf").write_text(text)

    def check(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*self.command, "-t"], capture_output=True, text=True, check=False)

    def start(self) -> None:
        self.process = subprocess.Popen(self.command)
        wait_for(self._answers, "An answer of nginx")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "error.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            return False
        return True

    @property
    def tls(self) -> ssl.SSLContext:
        """What a browser has that trusts the certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        for one in self._reserved:
            one.close()


def program() -> str | None:
    return shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


def certify(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that vouches for itself; returns it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    forms = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*forms))
    return pem, private
