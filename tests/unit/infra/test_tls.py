"""TLS between the nodes of Ray: certificates that their CA vouches for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.infra import INFRA


def test_a_node_gets_a_certificate_that_its_ca_vouches_for(tmp_path: Path) -> None:
    make_ca(tmp_path)
    probe = (
        "import json, os, ssl; "
        "context = ssl.create_default_context(cafile=os.environ['RAY_TLS_CA_CERT']); "
        "context.load_cert_chain(os.environ['RAY_TLS_SERVER_CERT'], os.environ['RAY_TLS_SERVER_KEY']); "
        "decoded = ssl._ssl._test_decode_cert(os.environ['RAY_TLS_SERVER_CERT']); "
        "print(json.dumps([os.environ['RAY_USE_TLS'], decoded['subjectAltName']]))"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "RAY_TLS_CA_FOLDER": str(tmp_path),
        "RAY_TLS_NAMES": "ray-head other",
        "RAY_TLS_ADDRESSES": "10.1.2.3",
        "TMPDIR": str(tmp_path),
    }
    command = [INFRA / "ray-tls.sh", sys.executable, "-c", probe]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    use_tls, names = json.loads(result.stdout)
    assert use_tls == "1"
    assert {"ray-head", "other", "localhost", "127.0.0.1", "10.1.2.3"} <= {name for _, name in names}
    (certificate,) = tmp_path.glob("*/tls.crt")
    subprocess.run(["openssl", "verify", "-CAfile", tmp_path / "ca.crt", certificate], check=True, capture_output=True)
    assert (certificate.parent / "tls.key").stat().st_mode & 0o777 == 0o600


def make_ca(folder: Path) -> None:
    """With the README's own command."""
    readme = (INFRA / "README.md").read_text()
    command = re.search(r"^openssl req -x509.*?(?<!\\)$", readme, re.MULTILINE | re.DOTALL)[0]
    command = command.replace("infra/certificates", str(folder))
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
