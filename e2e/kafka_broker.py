"""A broker of Apache Kafka in one process, and those who write to it."""

import logging
import subprocess
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

import harness
import tools
from harness import eventually

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
USER, PASSWORD = "vivace", "vivace-secret"

# What the client has to say while the broker is away.
QUIET = logging.getLogger("kafka-client")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


def certificate(folder):
    """Files of a certificate for 127.0.0.1 that is its own authority, and of its key; both together are in `both.pem`."""
    tools.require_packages({"openssl": "openssl"})
    cert, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=vivace-test", "-out", cert, "-keyout", key]
    extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *extensions], check=True, capture_output=True)
    (folder / "both.pem").write_text(key.read_text() + cert.read_text())
    return cert, key


class Broker(harness.Program):
    """Keeps its topics over a restart. Plain text on `address`, with a password as well on `sasl`; TLS with certificates of both sides on
    `tls`."""

    def __init__(self, folder):
        self.folder = Path(folder) / "kafka"
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = harness.free_ports(4)
        self.address, self.sasl, self.tls, controller = (f"127.0.0.1:{port}" for port in ports)
        self.certificate, self.key = certificate(self.folder)
        login = "org.apache.kafka.common.security"
        self.config = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.address},SASL_PLAINTEXT://{self.sasl},SSL://{self.tls},CONTROLLER://{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"{self.folder}/both.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificate,
            "ssl.client.auth": "required",
            "log.dirs": f"{self.folder}/logs",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(4 << 20),
        }
        super().__init__("kafka", self.java("kafka.Kafka", self.folder / "server.properties"), self.folder)

    def java(self, main, *arguments):
        # One process of many on a small machine.
        limits = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *limits, "-cp", tools.kafka(), main, *arguments]

    def start(self):
        (self.folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in self.config.items()))
        if not (self.folder / "logs").exists():
            users = [f"--add-scram=SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)]
            tool = self.java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", self.folder / "server.properties", *users)
            done = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done
        super().start()
        eventually("Kafka answers", self.answers, 60)
        return self

    def answers(self):
        self.require_running()
        try:
            return self.admin().list_topics(timeout=2).brokers
        except KafkaException:
            return None

    def admin(self):
        return AdminClient({"bootstrap.servers": self.address, "logger": QUIET})

    def create(self, topic, partitions=1):
        admin = self.admin()
        (created,) = admin.create_topics([NewTopic(topic, partitions, 1)]).values()
        created.result(timeout=30)
        return topic

    def grow(self, topic, partitions):
        admin = self.admin()
        (grown,) = admin.create_partitions([NewPartitions(topic, partitions)]).values()
        grown.result(timeout=30)

    def send(self, topic, messages, **options):
        """Sends values, or (value, headers), spread over the partitions; returns once they are there."""
        failed = []
        config = {"bootstrap.servers": self.address, "linger.ms": 20, "message.max.bytes": 4 << 20, "logger": QUIET, **options}
        producer = Producer(config)
        for number, message in enumerate(messages):
            value, headers = message if isinstance(message, tuple) else (message, None)
            producer.produce(topic, value, str(number), headers=headers, on_delivery=lambda error, _: failed.append(error))
            producer.poll(0)
        assert producer.flush(60) == 0
        assert not any(failed), [error for error in failed if error]

    def committed(self, topic, partitions=1, group="otel-collector"):
        """The sum of the group's offsets."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "logger": QUIET})
        try:
            asked = [TopicPartition(topic, partition) for partition in range(partitions)]
            return sum(max(partition.offset, 0) for partition in consumer.committed(asked, timeout=10))
        except KafkaException:
            return None
        finally:
            consumer.close()

    def members(self, group="otel-collector"):
        """Members of the group, and how many partitions each has."""
        admin = self.admin()
        (described,) = admin.describe_consumer_groups([group]).values()
        return [len(member.assignment.topic_partitions) for member in described.result(timeout=10).members]
