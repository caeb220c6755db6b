"""Consumer groups shared with other clients: who has committed what, waiting for it, holding back for it."""

import json
import subprocess
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
    for protocol in ("classic", "consumer"):
        yield f"balance waits for members of confluent-kafka ({protocol})", waited_for(protocol)
        yield f"a load is held back for members of confluent-kafka ({protocol})", held_for_members(protocol)
    yield "tidegate and confluent-kafka share a group (consumer)", shared


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


def waited_for(protocol: str):
    """A wait that begins before the group has committed anything ends when its members have committed all of it."""

    def case(ring):
        topic, sent = numbered(ring, partitions=2, count=60)
        group = group_name()
        check_balance(ring, topic, group, {0: (30, None, 30), 1: (30, None, 30)})
        stop, seen = threading.Event(), {"worst": 0, "records": 0}
        worker = threading.Thread(target=work_off, args=(ring.cluster, topic, group, stop, seen, protocol))
        worker.start()
        try:
            done = ring.tidegate.balance(ring.cluster, group, topic, "--timeout", "60s").expect(0)
            ring.equal(done.summary()["status"], "balanced", "status")
            # The members are still there, and their commits are theirs to make.
            check_balance(ring, topic, group, {0: (30, 30, 0), 1: (30, 30, 0)})
            told = ring.tidegate.run("doctor", "-g", group, "-b", ring.cluster.bootstrap).stdout.decode()
            assert f"group.protocol {protocol}" in told, told
        finally:
            stop.set()
            worker.join()
        ring.equal(seen["records"], len(sent), "records worked off")
        ring.cluster.delete_topic(topic)

    return case


def held_for_members(protocol: str):
    def case(ring):
        check_held_back(ring, protocol)

    return case


def shared(ring):
    """A member of each program in one group of the new protocol: each record is read by one of them."""
    topic, group = ring.topic(), group_name()
    ring.cluster.create_topic(topic, 4)
    stop, seen = threading.Event(), {"worst": 0, "records": 0, "places": []}
    worker = threading.Thread(target=work_off, args=(ring.cluster, topic, group, stop, seen, "consumer"))
    worker.start()
    producer = ring.cluster.producer()
    deadline = time.monotonic() + 2 * PATIENCE
    sent, ours = 0, None

    def send():
        nonlocal sent
        for partition in range(4):
            producer.produce(topic, json.dumps({"number": sent}).encode(), partition=partition)
            sent += 1
        producer.flush(PATIENCE)
        time.sleep(0.02)

    try:
        send()
        while seen["records"] < 4:
            assert time.monotonic() < deadline, "confluent-kafka has not read anything"
            time.sleep(0.05)
        where = ["-b", ring.cluster.bootstrap, "--registry", ring.cluster.registry_url]
        options = ["--no-progress", "--max", "100", "-X", "group.protocol=consumer"]
        ours = ring.tidegate.start("consume", "-t", topic, "-g", group, *where, *options, stdout=subprocess.PIPE)
        # Until ours has its share, and has read it.
        while ours.poll() is None:
            assert time.monotonic() < deadline, "tidegate has not read 100 records"
            send()
        output = ours.stdout.read()
        ring.equal(ours.returncode, 0, "exit code of tidegate")
        ring.tidegate.balance(ring.cluster, group, topic, "--timeout", "60s").expect(0)
    finally:
        if ours:
            ours.kill()
        stop.set()
        worker.join()
    lines = [json.loads(line) for line in output.splitlines()]
    places = [(line["partition"], line["offset"]) for line in lines] + seen["places"]
    ring.equal(len(lines), 100, "records read by tidegate")
    ring.equal((len(set(places)), len(places)), (sent, sent), "records read, each once")
    ring.cluster.delete_topic(topic)


def held_back(ring):
    check_held_back(ring, None)


def check_held_back(ring, protocol):
    """Never more than the limit beyond what the group has committed, measured from outside; then all of it done."""
    limit, rows = 200, 3000
    table = data.usage(ring.seed, rows)
    topic, group = ring.topic(), group_name()
    ring.cluster.create_topic(topic, 2)
    stop, seen = threading.Event(), {"worst": 0, "records": 0}
    worker = threading.Thread(target=work_off, args=(ring.cluster, topic, group, stop, seen, protocol))
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


def work_off(cluster, topic, group, stop, seen, protocol=None):
    """A slow consumer that commits now and then, and looks how far the topic is ahead of its commits: as a member of the group by this protocol,
    or, without one, on its own.

    The end of a partition is asked for before the commits are counted, which errs on the tidegate's side.
    """
    settings = {"group.protocol": protocol} if protocol else {}
    consumer = cluster.consumer(group, **settings)
    committed = {partition: 0 for partition in range(cluster.partitions(topic))}
    # Partitions that something was read of since they were given to it: of others somebody else has committed more meanwhile.
    read = set()

    def commit():
        mine = [partition.partition for partition in consumer.assignment()]
        offsets = [TopicPartition(topic, partition, committed[partition]) for partition in mine if partition in read]
        if offsets:
            consumer.commit(offsets=offsets, asynchronous=False)

    if protocol:
        consumer.subscribe(
            [topic],
            on_assign=lambda _, given: read.difference_update(partition.partition for partition in given),
            on_revoke=lambda *_: commit(),
        )
    else:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in committed])
    deadline = time.monotonic() + 2 * PATIENCE
    while not stop.is_set() and time.monotonic() < deadline:
        for message in consumer.consume(60, timeout=0.05):
            if message.error() is None:
                committed[message.partition()] = message.offset() + 1
                read.add(message.partition())
                seen["records"] += 1
                seen.setdefault("places", []).append((message.partition(), message.offset()))
        ahead = 0
        for partition, offset in committed.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE)
            ahead += end - offset
        seen["worst"] = max(seen["worst"], ahead)
        commit()
    consumer.close()
