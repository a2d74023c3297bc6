"""What a PostgreSQL URL means is what libpq takes it to mean, and nothing of it that is secret is shown."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.connections import connected, libpq_words
from storage.errors import DatabaseUnsupported
from storage.postgresql_url import read_url, secrets_in

libpq = pytest.importorskip("psycopg.conninfo", reason="no driver of PostgreSQL for this machine")


def normal(words):
    """libpq's words with every port written out, as it takes one that is left out."""
    words = {name: value for name, value in words.items() if value}
    if "host" not in words and "port" not in words:
        return words
    hosts, ports = words.get("host", "").split(","), words.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return {**words, "host": ",".join(hosts), "port": ",".join(port or "5432" for port in ports)}


def ours(url):
    """The same of what was read here, but for what is ours by default."""
    words = read_url(url).keywords()
    if "target_session_attrs" not in url:
        words.pop("target_session_attrs", None)
    return {name: value for name, value in words.items() if value or name == "host"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://db.example",
        "postgresql://user:pw@h1:5432,h2:5433/db?target_session_attrs=read-write",
        "postgres://user@h1,h2:6000,h3/db",
        "postgresql://user:p%40s%2Fs@[::1]:5432,[2001:db8::7],10.0.0.1:1/db?sslmode=verify-full",
        "postgresql://user@%2Frun%2Fpostgresql/db",
        "postgresql://user:@/db?host=/run/postgresql",
        "postgresql:///?host=a,b&port=1,2",
        "postgresql://a:1,b:2/db?host=c,d",
        "postgresql://a:1/db?host=c,d",
        "postgresql://a,b/?port=7",
        "postgresql:///db?port=7",
        "postgresql://user:pw@h/db?user=other&password=p%3Dw&dbname=elsewhere",
        "postgresql://h/d%20b?ssl=true",
        "postgresql://h/db?options=-c%20geqo%3Doff",
    ],
)
def test_a_url_means_what_libpq_takes_it_to_mean(url):
    """Several servers, IPv6, ports left out, sockets, and whatever the query says over that."""
    assert ours(url) == normal(libpq.conninfo_to_dict(url))


name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)
host = st.sampled_from(["h1", "h2.example", "[::1]", "[2001:db8::7]", "10.0.0.1", "%2Frun"])
port = st.sampled_from(["", ":1", ":5433", ":65535", ":"])


@given(
    user=name,
    password=name,
    servers=st.lists(st.tuples(host, port).map("".join), min_size=1, max_size=4).map(",".join),
    database=name,
    query=st.sampled_from(["", "?sslmode=require", "?port=9", "?connect_timeout=3&sslmode=disable"]),
)
def test_any_url_means_what_libpq_takes_it_to_mean(user, password, servers, database, query):
    """Whatever the credentials and the servers are, and its secrets are all known as such."""
    url = f"postgresql://{quote(user, '')}:{quote(password, '')}@{servers}/{quote(database, '')}{query}"
    assert ours(url) == normal(libpq.conninfo_to_dict(url))
    assert read_url(url).password in secrets_in(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@h:x/db",
        "postgresql://u:secret@h:0/db",
        "postgresql://u:secret@h:70000/db",
        "postgresql://u:secret@h:1,/db?port=1,2,3",
        "postgresql://u:secret@[::1/db",
        "postgresql://u:secret@::1/db",
        "postgresql://u:secr@et@h/db",
        "postgresql://u:secr/et@h/db",
        "postgresql://u:secret%00@h/db",
        "postgresql://u:secret%ff@h/db",
        "postgresql://u:secret@h/db?sslmode",
        "postgresql://u:secret@h/db?x=1=2",
        "postgresql://u:secret@h/db?sslmode=a&sslmode=b",
        "postgresql://u:secret@h/db?pooler=statement",
        "mysql://u:secret@h/db",
        "u:secret@h/db",
    ],
)
def test_what_cannot_be_read_is_refused_without_a_word_of_it(url):
    """The error is for the log, and the URL holds a password."""
    with pytest.raises(DatabaseUnsupported) as raised:
        connected(url)
    assert "secr" not in str(raised.value)


def test_of_several_servers_one_is_wanted_that_takes_writes():
    """Unless the URL says otherwise; of one server nobody asks what it is."""
    assert read_url("postgresql://a,b/db").options["target_session_attrs"] == "read-write"
    assert read_url("postgresql://a,b/db?target_session_attrs=any").options["target_session_attrs"] == "any"
    assert "target_session_attrs" not in read_url("postgresql://a/db").options


def test_a_server_that_is_away_leaves_time_for_the_next():
    """A provider waits for its answer while each is tried; what the URL says goes over that."""
    assert libpq_words(read_url("postgresql://a/db"))["connect_timeout"] == "3"
    assert libpq_words(read_url("postgresql://a,b/db"))["connect_timeout"] == "2"
    assert libpq_words(read_url("postgresql://a,b/db?connect_timeout=9"))["connect_timeout"] == "9"


def test_a_pooler_is_no_word_of_libpq():
    """It says how connections are used, and is kept from the driver."""
    pooled = read_url("postgresql://a/db?pooler=transaction")
    assert pooled.is_pooled
    assert "pooler" not in pooled.keywords()
    assert not read_url("postgresql://a/db?pooler=session").is_pooled


def test_secrets_are_found_wherever_they_stand_and_however_they_are_written():
    """Of a URL that cannot be read, too: it is masked all the same."""
    assert secrets_in("postgresql://u:p%40w@h/db?password=a%2Bb&sslpassword=k&user=x") == {
        *("p%40w", "p@w", "a%2Bb", "a+b", "k")
    }
    assert secrets_in("postgresql://u:pa/ss@h/db") == {"pa/ss"}
    assert secrets_in("sqlite:///var/receipted.db") == set()
    assert secrets_in("") == set()


def test_what_was_read_is_not_shown():
    """An address in a traceback tells no credentials."""
    assert "pw" not in repr(read_url("postgresql://us:pw@a,b/db?password=pw"))
