"""Values that make no sense are refused, in words that say which."""

import unittest

import helm_python as helm
from chart import render

GOOD = {"ceph": {"existingSecret": "ceph"}}

# what is wrong, and what must stand in the message
BAD = [
    ({"webhook": {"replicas": "two"}}, "/webhook/replicas"),
    ({"webhook": {"match": "always"}}, "/webhook/match"),
    ({"webook": {}}, "webook"),
    ({"node": {"attach": "nbd"}}, "/node/attach"),
    ({"node": {"kubeletDir": "var/lib/kubelet"}}, "/node/kubeletDir"),
    ({"node": {"io": {"resource": {}}}}, "resource"),
    ({"node": {"lease": "90"}}, "/node/lease"),
    ({"controller": {"resync": 60}}, "/controller/resync"),
    ({"controller": {"events": {"port": 70000}}}, "/controller/events/port"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"ceph": {"user": "client.admin"}}, "/ceph/user"),
    ({"ceph": {"monitors": "10.0.0.1"}}, "/ceph/monitors"),
    ({"ceph": {"monitors": ["10.0.0.1,10.0.0.2"]}}, "/ceph/monitors/0"),
    ({"databases": [{"name": "Orders", "spec": {}}]}, "/databases/0"),
    ({"monitoring": {"prometheusRule": {"poolWarning": 85}}}, "/monitoring/prometheusRule/poolWarning"),
    ({"kubeVersion": "latest"}, "/kubeVersion"),
]

# what the schema can't see
MISSING = [
    ({}, "the way to Ceph is missing"),
    ({"ceph": {"monitors": ["10.0.0.1"]}}, "ceph auth get-key client.admin"),
    ({"ceph": {"existingSecret": "x", "node": {"key": "QUJD"}}}, "ceph.monitors is empty"),
    ({"ceph": {"rook": {"enabled": True}}}, "there is none here"),
    ({**GOOD, "test": {"database": "orders"}}, "set test.image"),
]


class Refused(unittest.TestCase):
    def test_bad_values_are_refused_by_name(self):
        for values, words in BAD:
            with self.subTest(values=values), self.assertRaises(helm.HelmError) as refused:
                render({**GOOD, **values, "ceph": {**GOOD["ceph"], **values.get("ceph", {})}})
            self.assertIn(words, str(refused.exception))

    def test_what_is_missing_is_said_with_what_to_do(self):
        for values, words in MISSING:
            with self.subTest(values=values), self.assertRaises(helm.HelmError) as refused:
                render(values)
            self.assertIn(words, str(refused.exception))
