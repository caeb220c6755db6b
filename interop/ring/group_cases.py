"""Consumer groups shared with other clients: who has committed what, waiting for it, holding back for it."""

import json
import threading
import time
import uuid

from confluent_kafka import TopicPartition

from . import data
from .clients import PATIENCE
from .consume_cases import compare, number, numbered


def cases():
    yield "tidegate commits, confluent-kafka sees it", commits_are_seen
    yield "confluent-kafka commits, tidegate goes on from there", commits_are_taken
    yield "balance on a group of confluent-kafka", balance
    yield "balance ignores transaction markers", balance_over_markers
    yield "a load is held back for a group of confluent-kafka", held_back


def group_name() -> str:
    return f"interop-{uuid.uuid4()}"


def ends(sent) -> dict[int, int]:
    """Per partition the offset after the last record."""
    return {message.partition: message.offset + 1 for message in sent}


def commits_are_seen(ring):
    topic, sent = numbered(ring, partitions=2, count=60)
    group = group_name()
    first = ring.tidegate.consume(ring.cluster, topic, "-g", group, "--max", "25").expect(0).lines()
    ring.equal(len(first), 25, "records of the first run")
    printed = {}
    for line in first:
        printed[line["partition"]] = max(printed.get(line["partition"], 0), line["offset"] + 1)
    committed = ring.cluster.committed(group, topic)
    ring.equal({p: offset for p, offset in committed.items() if offset}, printed, "committed after the first run")

    second = ring.tidegate.consume(ring.cluster, topic, "-g", group, "--until-end").expect(0).lines()
    compare(ring, topic, sorted(first + second, key=lambda line: (line["partition"], line["offset"])), sent, number)
    ring.equal(ring.cluster.committed(group, topic), ends(sent), "committed after the second run")
    ring.cluster.delete_topic(topic)


def commits_are_taken(ring):
    topic, sent = numbered(ring, partitions=2, count=60)
    group = group_name()
    ring.cluster.commit(group, topic, {0: 10, 1: 20})
    done = ring.tidegate.consume(ring.cluster, topic, "-g", group, "--until-end").expect(0)
    left = [message for message in sent if message.offset >= (10, 20)[message.partition]]
    compare(ring, topic, done.lines(), left, number)
    ring.cluster.delete_topic(topic)


def balance(ring):
    topic, sent = numbered(ring, partitions=2, count=60)
    group = group_name()
    check_balance(ring, topic, group, {0: (30, None, 30), 1: (30, None, 30)})
    ring.cluster.commit(group, topic, {0: 10})
    check_balance(ring, topic, group, {0: (30, 10, 20), 1: (30, None, 30)})
    ring.cluster.commit(group, topic, {0: 30, 1: 29})
    check_balance(ring, topic, group, {0: (30, 30, 0), 1: (30, 29, 1)})
    ring.cluster.commit(group, topic, ends(sent))
    check_balance(ring, topic, group, {0: (30, 30, 0), 1: (30, 30, 0)})
    ring.cluster.delete_topic(topic)


def check_balance(ring, topic, group, expected):
    """`expected` is target, committed and behind per partition; the exit code follows from it."""
    behind = any(left for _, _, left in expected.values())
    done = ring.tidegate.balance(ring.cluster, group, topic, "--timeout", "1s").expect(8 if behind else 0)
    summary = done.summary()
    ring.equal(summary["status"], "behind" if behind else "balanced", "status")
    found = {entry["partition"]: (entry["target"], entry["committed"], entry["behind"]) for entry in summary["partitions"]}
    ring.equal(found, expected, "target, committed and behind per partition")


def balance_over_markers(ring):
    """A group that has committed the last record is done, although a marker and aborted records follow."""
    topic = ring.topic()
    ring.cluster.create_topic(topic, 1)
    producer = ring.cluster.producer(**{"transactional.id": topic})
    producer.init_transactions(60)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for i in range(10):
            producer.produce(topic, json.dumps({"number": i}).encode(), partition=0)
        producer.flush(60)
        end(60)
    group = group_name()
    ring.cluster.commit(group, topic, {0: 9})
    check_balance(ring, topic, group, {0: (10, 9, 1)})
    ring.cluster.commit(group, topic, {0: 10})
    check_balance(ring, topic, group, {0: (10, 10, 0)})
    ring.cluster.delete_topic(topic)


def held_back(ring):
    """Never more than the limit beyond what the group has committed, measured from outside; then all of it done."""
    limit, rows = 200, 3000
    table = data.usage(ring.seed, rows)
    topic, group = ring.topic(), group_name()
    ring.cluster.create_topic(topic, 2)
    stop, seen = threading.Event(), {"worst": 0, "records": 0}
    worker = threading.Thread(target=work_off, args=(ring.cluster, topic, group, stop, seen))
    worker.start()
    try:
        file = ring.tidegate.file("held.csv", table.csv())
        # Markers of transactions take offsets: without them the distance of offsets, which is all that is seen from here, counts records.
        hold = ["--delivery", "at-least-once", "--hold-group", group, "--hold-limit", str(limit), "--wait-group", group, "--wait-timeout", "60s"]
        done = ring.tidegate.publish(ring.cluster, file, topic, "--format", "json", "--partitions", "2", *hold).expect(0)
    finally:
        stop.set()
        worker.join()
    ring.equal(done.summary()["wait"]["status"], "balanced", "the wait's status")
    ring.equal(seen["records"], rows, "records worked off")
    assert 0 < seen["worst"] <= limit, f"{seen['worst']} records were outstanding, and the limit is {limit}"
    ring.cluster.delete_topic(topic)


def work_off(cluster, topic, group, stop, seen):
    """A slow consumer that commits now and then, and looks how far the topic is ahead of its commits.

    The end of a partition is asked for before the commits are counted, which errs on the tidegate's side.
    """
    consumer = cluster.consumer(group)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in (0, 1)])
    committed = {0: 0, 1: 0}
    deadline = time.monotonic() + 2 * PATIENCE
    while not stop.is_set() and time.monotonic() < deadline:
        for message in consumer.consume(60, timeout=0.05):
            if message.error() is None:
                committed[message.partition()] = message.offset() + 1
                seen["records"] += 1
        ahead = 0
        for partition, offset in committed.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE)
            ahead += end - offset
        seen["worst"] = max(seen["worst"], ahead)
        consumer.commit(offsets=[TopicPartition(topic, p, offset) for p, offset in committed.items()], asynchronous=False)
    consumer.close()
