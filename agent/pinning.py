"""Pinning the hub's own certificate authority by the hash that a person brought in the join line."""

from __future__ import annotations

import hashlib
import hmac
import ssl

from agent.address import Origin
from agent.http import Connection
from agent.wire.errors import Stop


class WrongAuthority(Stop):
    """The hub's certificate authority is not the one that the join line names."""

    code = "EF4036"


def pinned_authority(origin: Origin, ca_hash: str) -> bytes:
    """Return the certificate of the hub's own authority, PEM, fetched over a line that is not trusted yet.

    Nothing secret goes over that line, and what comes is believed for its hash alone.

    Raises:
        WrongAuthority: it has another hash, or the hub has no authority of its own.
        Retry: the hub did not answer.
    """
    if origin.scheme != "https":
        raise WrongAuthority("a hub over plain HTTP has no certificate", where=str(origin), do="leave out --ca-hash")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = Connection(origin, context)
    try:
        answer = connection.ask("GET", "/v1/authority", most_bytes=64 << 10)
    finally:
        connection.close()
    advice = "paste the whole line that `edgeferry cluster token` printed, and check the address"
    try:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(answer.body.decode("ascii"))).hexdigest()
    except ValueError as error:
        raise WrongAuthority(f"no certificate authority: {error}", where=str(origin), do=advice) from None
    if not hmac.compare_digest(f"sha256:{found}", ca_hash.strip().lower()):
        raise WrongAuthority(f"its hash is sha256:{found}, not {ca_hash[:80]}", where=str(origin), do=advice)
    return answer.body
