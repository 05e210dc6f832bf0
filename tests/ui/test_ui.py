"""A person's way through the real UI, in a browser: the graph, a drop taken in, a training watched, the report read."""

import json
import time
import urllib.request

import pytest

from resources.servers import graph_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]


def ask(servers, query):
    """What the web server behind the guard answers to a query, asked as its own page asks."""
    headers = {"Content-Type": "application/json", "Origin": servers.dagster}
    request = urllib.request.Request(f"{servers.dagster}/graphql", json.dumps({"query": query}).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]


def switch_on(servers, name):
    """What a flip of a sensor's switch on the automation page sends."""
    place = f'repositoryName: "__repository__", repositoryLocationName: "dpo-pipeline", sensorName: "{name}"'
    answer = ask(servers, f"mutation {{ startSensor(sensorSelector: {{{place}}}) {{ __typename }} }}")
    assert answer["startSensor"]["__typename"] == "Sensor"


def test_the_graph_shows_every_group_in_the_order_of_the_data(browser, servers):
    browser.open(f"{servers.dagster}{graph_path()}")
    for text in ("1_annotations", "2_preferences", "3_sft", "4_dpo", "5_evaluation", "6_release", "preference_pairs"):
        browser.wait_for(text)
    assert "dpo_checkpoint" in browser.text()


def test_a_drop_is_taken_in_by_switching_the_sensor_on(browser, servers):
    browser.open(f"{servers.dagster}/automation")
    browser.wait_for("new_drops")
    switch_on(servers, "new_drops")
    browser.open(f"{servers.dagster}/runs")
    browser.wait_for("2026-09-first", seconds=120)
    browser.wait_until("(document.body.innerText.match(/Success/g) || []).length >= 2", seconds=240)
    assert servers.home.partitions("judgments") == ["2026-09-first", "2026-10-second"]
    browser.open(f"{servers.dagster}/assets/judgments?view=checks")
    browser.wait_for("books_balance")


def test_everything_is_launched_from_its_job_and_watched_to_its_end(browser, servers):
    browser.open(f"{servers.dagster}/locations/dpo-pipeline/jobs/everything")
    browser.wait_for("Materialize all")
    browser.click("Materialize all")
    run = run_of(servers, "everything")
    browser.open(f"{servers.dagster}/runs/{run}")
    browser.wait_for("Step ", seconds=300)  # progress, loss, speed and time left, while it trains
    browser.wait_for("tokens/s", seconds=60)
    browser.wait_for("RUN_SUCCESS", seconds=900)
    assert servers.home.latest("evaluation_report").verify() == []


def run_of(servers, job):
    """The id of the newest run of a job."""
    query = (
        f'{{ runsOrError(filter: {{pipelineName: "{job}"}}, limit: 1) {{ ... on Runs {{ results {{ runId }} }} }} }}'
    )
    deadline = time.monotonic() + 60
    while not (found := ask(servers, query)["runsOrError"]["results"]):
        assert time.monotonic() < deadline
        time.sleep(1)
    return found[0]["runId"]


def test_the_report_opens_from_the_assets_page(browser, servers):
    browser.open(f"{servers.dagster}/assets/evaluation_report")
    browser.wait_for("report", seconds=60)
    browser.wait_until("[...document.querySelectorAll('a')].some(a => a.href.endsWith('/report.html'))")
    link = browser.evaluate("[...document.querySelectorAll('a')].find(a => a.href.endsWith('/report.html')).href")
    assert link.startswith(servers.pages)
    browser.open(link)
    browser.wait_for("dpo against sft")
    assert "held-out pairs" in browser.text()


def test_a_drop_of_which_nothing_can_be_used_says_on_its_check_what_to_do(browser, servers):
    folder = servers.home.inbox / "2026-11-broken"
    folder.mkdir()
    (folder / "export.jsonl").write_text("no such format\n")
    (folder / "_COMPLETE").touch()
    browser.open(f"{servers.dagster}/runs")
    browser.wait_for("2026-11-broken", seconds=120)
    browser.open(f"{servers.dagster}/assets/judgments?view=checks&checkDetail=something_usable")
    browser.wait_for("None of the 1 records of 2026-11-broken could be used: invalid_json 1.", seconds=240)
    browser.wait_for("correct the drop in the inbox, and it is taken in as a new version")


LAUNCH = """mutation {{ launchRun(executionParams: {{runConfigData: {config}, selector: {{jobName: "train",
  repositoryName: "__repository__", repositoryLocationName: "dpo-pipeline"}}}}) {{ __typename
  ... on LaunchRunSuccess {{ run {{ runId }} }} ... on RunConfigValidationInvalid {{ errors {{ message }} }} }} }}"""


def launch(servers, change):
    """What the launchpad's button sends, with a change of the profile."""
    config = json.dumps({"resources": {"settings": {"config": {"change": change}}}})
    return ask(servers, LAUNCH.format(config=json.dumps(config)))["launchRun"]


def test_a_misspelt_setting_makes_no_run_and_a_wrong_one_says_so_on_the_runs_page(browser, servers):
    refused = launch(servers, {"dpo": {"bta": 0.2}})
    assert refused["__typename"] == "RunConfigValidationInvalid"
    assert "beta?: Float" in refused["errors"][0]["message"]
    browser.open(f"{servers.dagster}/runs/{launch(servers, {'dpo': {'beta': -1}})['run']['runId']}")
    browser.wait_for("RUN_FAILURE", seconds=240)
    browser.wait_for("dpo.beta is -1.0: input should be greater than 0")
