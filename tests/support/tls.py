"""Authorities and certificates of a test's own."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """Whoever signs certificates."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate, as it is trusted."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def authority(name: str, issuer: Authority | None = None) -> Authority:
    """An authority that signs itself, or is signed by another."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), _name(name)
    builder = _builder(subject, issuer.name if issuer else subject, key, datetime.now(UTC) + 365 * _DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Authority(subject, key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def served(
    folder: Path, host: str, issuer: Authority, *chain: Authority, ends_in: timedelta = 90 * _DAY
) -> tuple[str, str]:
    """Paths of a certificate for the host with these authorities behind it, and of its key."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(host), issuer.name, key, datetime.now(UTC) + ends_in)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    made = builder.sign(issuer.key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM) + b"".join(each.pem for each in chain)
    (folder / "chain.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return str(folder / "chain.pem"), str(folder / "key.pem")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, ends_at: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends_at - 400 * _DAY)
        .not_valid_after(ends_at)
    )
