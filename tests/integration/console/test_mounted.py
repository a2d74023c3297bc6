"""The console within the whole application: beside the way in, switched off, and in no way of providers."""

import httpx2

from tests.support.serving import serving, settings


def test_the_console_answers_beside_the_way_in(tmp_path):
    with serving(settings(tmp_path)) as served:
        url = f"http://127.0.0.1:{served.port}"

        for path in ("/console", "/console/"):
            sent_away = httpx2.get(f"{url}{path}")
            assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/console/login")
        assert "Log in" in httpx2.get(f"{url}/console/login").text
        assert httpx2.get(f"{url}/webhooks/sg").status_code == 200
        for elsewhere in ("/consoles", "/Console/", "/elsewhere"):
            answer = httpx2.get(f"{url}{elsewhere}")
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


def test_the_console_can_be_switched_off(tmp_path):
    found = settings(tmp_path)
    off = found.model_copy(update={"console": found.console.model_copy(update={"enabled": False})})
    with serving(off) as served:
        for path in ("/console", "/console/", "/console/login", "/console/static/console.css"):
            assert httpx2.get(f"http://127.0.0.1:{served.port}{path}").status_code == 404


def test_without_a_way_that_is_encrypted_nothing_is_served_and_nobody_is_sent_anywhere(tmp_path):
    with serving(settings(tmp_path, development=False)) as served:
        answer = httpx2.get(f"http://127.0.0.1:{served.port}/console/login")

    assert (answer.status_code, "location" in answer.headers, "set-cookie" in answer.headers) == (403, False, False)
    assert "<form" not in answer.text


def test_a_form_that_is_too_large_is_not_read(tmp_path):
    with serving(settings(tmp_path, body_limit_bytes=2000)) as served:
        url = f"http://127.0.0.1:{served.port}"
        answer = httpx2.post(f"{url}/console/login", data={"name": "x" * 3000}, headers={"origin": url})

    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith("text/html")
