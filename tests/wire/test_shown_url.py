"""No secret of a URL is shown."""

from __future__ import annotations

import pytest
from capsign_wire.shown_url import without_secrets


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/log", "postgresql://ann:…@db:5432/log"),
        ("postgressql://ann:s3/c?r@et@db/log,/cold", "postgressql://ann:…@db/log,/cold"),
        ("postgresql://ann@db/log?password=s3cret&x=1", "postgresql://ann@db/log?…"),
        ("https://s3cret@collector/v1/logs", "https://…@collector/v1/logs"),
        ("ftp://:s3cret@host is no endpoint", "ftp://:…@host is no endpoint"),
        ("https://host/logs?token=s3cret", "https://host/logs?…"),
        ("host=db password=s3cret user=ann", "host=db password=… user=ann"),
        ("host=db PASSWORD = 's3 cr\\'et' user=ann", "host=db PASSWORD = … user=ann"),
        ("ocsf-otlp endpoint=https://a:s3cret@b to=c", "ocsf-otlp endpoint=https://a:…@b to=c"),
    ],
)
def test_what_is_secret_is_not_shown(given, shown):
    assert without_secrets(given) == shown
    assert "s3" not in shown


@pytest.mark.parametrize(
    "given", ["/var/lib/capsign/log", "sqlite:///a/b", "http://host:4318/v1/logs", "a b", ""]
)
def test_what_has_no_secret_stays(given):
    assert without_secrets(given) == given
