import re

from tests.fakes.console import PASSWORD


def test_a_page_needs_a_person_and_the_log_in_leads_back_to_it(console):
    browser, person = console.client(None), console.person("viewer")

    sent_away = browser.get("/console/me")
    assert sent_away.headers["location"] == "/console/login?next=%2Fconsole%2Fme"
    form = browser.follow(sent_away)
    answer = browser.post("/console/login", {**fields(form.text), "name": person.name, "password": PASSWORD})

    assert answer.headers["location"] == "/console/me"
    assert person.name in browser.follow(answer).text


def fields(page):
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
