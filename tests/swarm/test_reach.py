from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from irontide.swarm.reach import Reach, parse, reach_of, trust_in

HOSTS = {
    "8.8.8.8": Reach.EVERYWHERE,
    "172.15.255.255": Reach.EVERYWHERE,
    "172.32.0.1": Reach.EVERYWHERE,
    "203.0.113.5": Reach.EVERYWHERE,
    "2001:4860::1": Reach.EVERYWHERE,
    "10.0.0.1": Reach.NETWORK,
    "172.16.0.1": Reach.NETWORK,
    "192.168.255.255": Reach.NETWORK,
    "169.254.169.254": Reach.NETWORK,
    "100.64.0.1": Reach.NETWORK,
    "fd00::1": Reach.NETWORK,
    "fe80::1": Reach.NETWORK,
    "::ffff:10.0.0.1": Reach.NETWORK,
    "127.0.0.1": Reach.HOST,
    "127.255.0.1": Reach.HOST,
    "::1": Reach.HOST,
    "::ffff:127.0.0.1": Reach.HOST,
    "0.0.0.0": Reach.NOWHERE,
    "0.1.2.3": Reach.NOWHERE,
    "::": Reach.NOWHERE,
    "::ffff:0.0.0.0": Reach.NOWHERE,
    "224.0.0.1": Reach.NOWHERE,
    "239.192.152.143": Reach.NOWHERE,
    "240.0.0.1": Reach.NOWHERE,
    "255.255.255.255": Reach.NOWHERE,
    "ff02::1": Reach.NOWHERE,
}


class ReachTests(SynchronousTestCase):
    def test_reach(self) -> None:
        for host, reach in HOSTS.items():
            ip = parse(host)
            assert ip is not None, host
            self.assertEqual(reach_of(ip), reach, host)

    def test_names_are_no_addresses(self) -> None:
        for host in ("localhost", "tracker.example", "", "1.2.3", "1.2.3.4:80", "[::1]", "٣.3.3.3"):
            self.assertIsNone(parse(host), host)

    def test_mapped_address_is_the_ipv4_one(self) -> None:
        self.assertEqual(str(parse("::ffff:1.2.3.4")), "1.2.3.4")

    def test_who_is_near_is_trusted_in_what_is_as_near(self) -> None:
        self.assertEqual(trust_in("127.0.0.1"), Reach.HOST)
        self.assertEqual(trust_in("localhost"), Reach.HOST)
        self.assertEqual(trust_in("192.168.1.1"), Reach.NETWORK)
        self.assertEqual(trust_in("8.8.8.8"), Reach.EVERYWHERE)

    def test_names_and_nobody_are_far_away(self) -> None:
        for teller in (None, "tracker.example", "localhost.example", "0.0.0.0", "255.255.255.255", "::"):
            self.assertEqual(trust_in(teller), Reach.EVERYWHERE)
