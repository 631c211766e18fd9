#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a real Keystone says of who asks; one that hangs, is slow or flaps, and clients with tokens that are
remembered, new, made up or expired."""

import json
import os
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import access  # noqa: E402
from auth import image_of, the_rules  # noqa: E402
from auth import status as status_of  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from keystone import Keystone, free_port  # noqa: E402
from proxy import Proxy  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402

MADE_UP = 100
ASKING_MAX = 8
WAIT_SEC = 60
# So few descriptors that there is room for 96 connections: 48 wait at most.
FEW = ["prlimit", "--nofile=256:256"]


def status(g, token, service=None):
    return g.request("GET", "/v2/images?limit=1", token=token, headers={
        "X-Service-Token": service} if service else None).status


def median_sec(g, token, n=25):
    took = []
    for _ in range(n):
        began = time.monotonic()
        is_equal(status(g, token), 200, "the status of a remembered token")
        took.append(time.monotonic() - began)
    return statistics.median(took)


class Asked:
    """Requests in threads of their own: .statuses by number, .took."""

    def __init__(self, g, tokens, headers=None):
        self.answers, self.took, self.headers = {}, {}, headers
        self.threads = [threading.Thread(target=self._ask, args=(g, n, t),
                                         daemon=True)
                        for n, t in enumerate(tokens)]
        for t in self.threads:
            t.start()

    def _ask(self, g, n, token):
        began = time.monotonic()
        try:
            self.answers[n] = g.request("GET", "/v2/images?limit=1",
                                        headers=self.headers, token=token)
        except OSError as e:
            self.answers[n] = e
        self.took[n] = time.monotonic() - began

    def wait(self):
        deadline = time.monotonic() + WAIT_SEC
        for t in self.threads:
            t.join(max(0, deadline - time.monotonic()))
        is_equal(len(self.answers), len(self.threads), "the answers")
        return self.statuses()

    def statuses(self):
        return [getattr(a, "status", repr(a)) for a in self.answers.values()]


def wait_for(what, message):
    deadline = time.monotonic() + WAIT_SEC
    while not what():
        is_true(time.monotonic() < deadline, message)
        time.sleep(0.02)


def who_is_remembered_does_not_wait_for_others(k):
    known, new = k.add_user("known")[0], k.add_user("new")[0]
    with Glance(*k.parameters(), wrap=FEW) as g:
        is_equal(status(g, known), 200, "the status of a token")
        usual = median_sec(g, known)
        k.hang()
        try:
            first = Asked(g, [new])
            time.sleep(0.2)
            made_up = Asked(g, [f"made up {n}" for n in range(MADE_UP)])
            # Those beyond half of the connections are sent away.
            wait_for(lambda: len(made_up.answers) > MADE_UP // 4,
                     "all wait for Keystone")
            is_equal(set(made_up.statuses()), {503}, "what they are told")
            is_equal(made_up.answers[next(iter(made_up.answers))]
                     .headers["retry-after"], "1", "Retry-After")
            took = median_sec(g, known)
            is_true(not first.answers, "nobody waits for Keystone any more")
            is_true(took < 5 * usual + 0.02,
                    f"{took * 1e3:.2f} ms, {usual * 1e3:.2f} are usual")
            print(f"remembered: {usual * 1e3:.2f} ms, hanging: "
                  f"{took * 1e3:.2f} ms", flush=True)
            # That there is no answer in time is no answer.
            is_equal(first.wait(), [503], "a valid token, Keystone hanging")
            is_true(8 < first.took[0] < 50, f"after {first.took[0]} s")
        finally:
            k.go_on()
        is_true(set(made_up.wait()) <= {401, 503}, "what is made up")
        wait_for(lambda: status(g, new) == 200, "a valid token is not taken")
        said = g.messages()
        is_true("Keystone at" in said, f"the log says {said!r}")
        is_true(said.count("\n") < 20, f"the log says {said!r}")


def a_server_ends_though_keystone_hangs(k):
    token = k.add_user("ending")[0]
    with Proxy(k.port) as proxy:
        with Glance(*k.parameters(proxy.url)) as g:
            proxy.mode = "hang"
            asked = Asked(g, [token, "x", "y"])
            wait_for(lambda: proxy.count, "nobody is asked")
            began = time.monotonic()
        is_true(time.monotonic() - began < 8, "it waits for Keystone")
        asked.wait()
        # Nor does its start.
        began = time.monotonic()
        with Glance("limits=keystone", *k.parameters(proxy.url)) as g:
            is_true(time.monotonic() - began < 8, "it waits for Keystone")


def slow_answers_are_waited_for_once(k):
    tokens = [k.add_user(f"slow{n}")[0] for n in range(2)]
    with Proxy(k.port) as proxy, Glance(*k.parameters(proxy.url)) as g:
        is_equal(status(g, tokens[0]), 200, "the status of a token")
        proxy.delay, before = 1, proxy.count
        is_equal(Asked(g, [tokens[1]] * 20).wait(), [200] * 20, "the statuses")
        is_equal(proxy.count - before, 1, "the questions for one token")
        proxy.delay = 0
        for _ in range(5):
            is_equal(status(g, "made up"), 401, "the status of none")
        is_equal(proxy.count - before, 2, "the questions for none")


def what_is_cut_off_is_no_answer(k):
    known, new = k.add_user("flap1")[0], k.add_user("flap2")[0]
    with Proxy(k.port) as proxy, Glance(*k.parameters(proxy.url)) as g:
        proxy.mode = "cut"
        is_equal(status(g, known), 503, "the status without Keystone")
        proxy.mode = "pass"
        # A login that has failed is not tried again at once.
        wait_for(lambda: status(g, known) == 200, "Keystone is not asked")
        for mode, wanted in (("cut", 503), ("404", 503), ("pass", 200),
                             ("404", 200), ("cut", 200)):
            proxy.mode = mode
            is_equal(status(g, new), wanted, f"a token with {mode}")
            is_equal(status(g, known), 200, f"a remembered one with {mode}")


def who_asks_for_many_tokens_takes_turns(k):
    """Behind a proxy that is believed, by X-Forwarded-For."""
    with Proxy(k.port) as proxy, \
            Glance("glance-proxies=unix", *k.parameters(proxy.url)) as g:
        is_equal(status(g, k.token), 200, "the status of a token")
        proxy.mode, before = "hang", proxy.count
        made_up = Asked(g, [f"turn {n}" for n in range(40)])
        wait_for(lambda: proxy.count - before == ASKING_MAX, "nobody is asked")
        time.sleep(0.3)
        other = Asked(g, ["another's"], {"X-Forwarded-For": "198.51.100.7"})
        time.sleep(0.3)
        is_equal(proxy.count - before, ASKING_MAX, "the questions at a time")
        proxy.mode = "cut"
        is_equal(set(made_up.wait() + other.wait()), {503}, "the statuses")
        is_equal(len(proxy.asked), 41, "the questions")
        at = [b"another's" in q for q in proxy.asked].index(True)
        is_true(at < 2 * ASKING_MAX, f"another's is asked for as number {at}")


def one_address_does_not_take_all_places(k):
    with Proxy(k.port) as proxy, \
            Glance("glance-proxies=unix", *k.parameters(proxy.url),
                   wrap=FEW) as g:
        is_equal(status(g, k.token), 200, "the status of a token")
        proxy.mode = "hang"
        made_up = Asked(g, [f"place {n}" for n in range(40)])
        wait_for(lambda: len(made_up.answers) == 16, "24 do not wait")
        is_equal(set(made_up.statuses()), {503}, "what the others are told")
        other = Asked(g, ["another's"], {"X-Forwarded-For": "198.51.100.7"})
        time.sleep(0.3)
        is_equal(other.statuses(), [], "what another is told")
        is_equal(status(g, "place and more"), 503, "one more's status")
        proxy.mode = "cut"
        made_up.wait()
        other.wait()


def expired_tokens_are_forgiven_by_services(k):
    k.add_role("service")
    user = k.add_user("long")[0]
    nova = k.add_user("nova", ("service",))[0]
    old = k.expired(user)
    with Glance(*k.parameters()) as g:
        for token, service, wanted, what in (
                (old, None, 401, "an expired token"),
                (old, nova, 200, "with a service's"),
                (old, None, 401, "once it was forgiven"),
                (old, user, 401, "with a user's as a service's"),
                (old, old, 401, "with itself as a service's"),
                (user, "none", 401, "a token with a wrong one of a service"),
                (user, user, 200, "a token with a user's as a service's"),
                ("none", nova, 401, "none with a service's"),
                (user, nova, 200, "a token with a service's")):
            is_equal(status(g, token, service), wanted, what)
        k.hang()
        try:
            is_equal(status(g, old, nova), 200, "what is remembered")
            is_equal(status(g, old), 401, "what is remembered, unforgiven")
            is_equal(status(g, "none", nova), 401, "none, remembered")
        finally:
            k.go_on()
    with Glance("keystone-service-roles=swift,admin", *k.parameters()) as g:
        is_equal(status(g, old, nova), 401, "with another role")
        is_equal(status(g, old, k.token), 200, "with an administrator's")


def keystone_has_the_limits(k, port, one, two, p1):
    def ask(path, body=None):
        return k.request("POST" if body else "GET", "/v3/" + path, body,
                         k.token)[0]

    service = ask("services?type=image")["services"][0]["id"]
    for name, limit in ("image_count_total", 3), ("image_size_total", 100):
        ask("registered_limits", {"registered_limits": [{
            "service_id": service, "resource_name": name,
            "default_limit": limit}]})
    own = ask("limits", {"limits": [{
        "service_id": service, "project_id": p1,
        "resource_name": "image_count_total", "resource_limit": 1}]})
    own = own["limits"][0]["id"]

    def creates(g, token, wanted):
        is_equal(status_of(g, token, "POST", "/v2/images", {}), wanted,
                 "the status of a new image")

    def limit_of(g, token):
        usage = g.request("GET", "/v2/info/usage", token=token).json["usage"]
        return usage["image_count_total"]["limit"]

    with Glance("limits=keystone:1", f"glance=127.0.0.1:{port}",
                *k.parameters(), tcp=port) as g:
        access.be_patient(g, one)
        access.be_patient(g, two)
        # The start does not wait for them.
        wait_for(lambda: limit_of(g, one) == 1, "they are not known")
        for n in range(3):
            creates(g, one, 413 if n else 201)
            creates(g, two, 201)
        creates(g, two, 413)
        is_equal((limit_of(g, one), limit_of(g, two)), (1, 3), "the limits")
        k.request("PATCH", f"/v3/limits/{own}", {
            "limit": {"resource_limit": 2}}, k.token)
        deadline = time.monotonic() + 15
        while limit_of(g, one) != 2:
            is_true(time.monotonic() < deadline, "a new limit is not known")
            time.sleep(0.1)
        creates(g, one, 201)
    for text, says in (("keystone", "needs auth=keystone"),
                       ("keystone:0", "SECONDS"), ("keystone:x", "SECONDS")):
        try:
            with Glance(f"limits={text}"):
                pass
        except Failure as e:
            is_true(says in str(e), str(e))
        else:
            raise Failure(f"limits={text} is taken")


def keystone_says_who_asks(k):
    port = k.image_port
    one, p1 = k.add_user("one")
    two, p2 = k.add_user("two")
    with Glance(f"glance=127.0.0.1:{port}", *k.parameters(),
                tcp=port) as g:
        for token in ("nonsense", one, two, k.token):
            access.be_patient(g, token)
        is_equal(status_of(g, "nonsense", "GET", "/v2/images"), 401,
                 "the status of a wrong token")
        shared = the_rules(g, one, two, k.token)
        is_equal(g.request("GET", shared, token=one).json["owner"], p1,
                 "the owner")
        is_equal(status_of(g, one, "POST", shared + "/members",
                        {"member": p2}), 200, "sharing")
        is_equal(status_of(g, two, "GET", shared), 200, "a member")
        out = run(["openstack", "--os-auth-url", k.url + "/v3",
                   "--os-username", "one", "--os-password", "secret",
                   "--os-project-name", "one", "--os-user-domain-id",
                   "default", "--os-project-domain-id", "default",
                   "--os-region-name", "RegionOne",
                   "--os-identity-api-version", "3", "image", "list",
                   "-f", "json"],
                  env={n: v for n, v in os.environ.items()
                       if not n.startswith("OS_")})[1]
        is_equal(len(json.loads(out)), 2, "what openstack lists")
    with tempfile.TemporaryDirectory(prefix="platter-keystone-") as overlays:
        access.keystone_lets_in_the_same(k, port, overlays, (one, p1),
                                         (two, p2))
    keystone_has_the_limits(k, port, one, two, p1)


def keystone_may_be_gone(k):
    """For good: the last."""
    one = k.add_user("four")[0]
    with Glance(*k.parameters()) as g:
        access.be_patient(g, one)
        shared = image_of(g, one)
        # A token that nobody remembers, and a Keystone that is gone.
        three = k.add_user("three")[0]
        k.process.terminate()
        k.process.wait()
        is_equal(status_of(g, three, "GET", "/v2/images"), 503,
                 "the status without Keystone")
        is_equal(status_of(g, one, "GET", "/v2/images"), 200,
                 "the status of a token just seen")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "openstack", "keystone-manage",
                  "keystone-wsgi-public", "prlimit")
    image_port = free_port()
    with Keystone(f"http://127.0.0.1:{image_port}", cache=True) as keystone:
        keystone.image_port = image_port
        run_checks(lambda folder: keystone, [
            who_is_remembered_does_not_wait_for_others,
            a_server_ends_though_keystone_hangs,
            slow_answers_are_waited_for_once,
            what_is_cut_off_is_no_answer,
            who_asks_for_many_tokens_takes_turns,
            one_address_does_not_take_all_places,
            expired_tokens_are_forgiven_by_services,
            keystone_says_who_asks,
            keystone_may_be_gone,
        ])
