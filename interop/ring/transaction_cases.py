"""Transactions of a foreign producer, which speaks the protocol before KIP-890: what counts, and who may."""

import time

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from .clients import PATIENCE
from .group_cases import group_name


def cases():
    yield "consume, transform and produce in transactions", consume_transform_produce
    yield "a second producer fences the first", fencing
    yield "a transaction out of time does not count", out_of_time


def transactional(ring, name: str, **settings):
    producer = ring.cluster.producer(**({"transactional.id": name} | settings))
    producer.init_transactions(PATIENCE)
    return producer


def values(ring, topic: str, isolation: str = "read_committed") -> list[str]:
    return [message.value.decode() for message in ring.cluster.read(topic, **{"isolation.level": isolation})]


def consume_transform_produce(ring):
    """Position and result move together: what an aborted round did is done again, and nothing twice."""
    rows = 200
    source, sink, group = ring.topic(), ring.topic(), group_name()
    for topic in (source, sink):
        ring.cluster.create_topic(topic, 1)
    plain = ring.cluster.producer()
    for row in range(rows):
        plain.produce(source, str(row).encode(), partition=0)
    plain.flush(PATIENCE)
    producer = transactional(ring, f"{sink}-transform")
    consumer = ring.cluster.consumer(group)
    consumer.subscribe([source])
    done, rounds, deadline = 0, 0, time.monotonic() + 2 * PATIENCE
    while done < rows:
        assert time.monotonic() < deadline, f"{done} of {rows} rows after {rounds} rounds"
        messages = [message for message in consumer.consume(25, timeout=1) if message.error() is None]
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(sink, message.value(), partition=0)
        # An abort drops what has not been sent; this is about what has.
        producer.flush(PATIENCE)
        place = TopicPartition(source, 0, messages[-1].offset() + 1)
        producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), PATIENCE)
        rounds += 1
        if rounds % 3:
            producer.commit_transaction(PATIENCE)
            done += len(messages)
        else:
            producer.abort_transaction(PATIENCE)
            consumer.seek(TopicPartition(source, 0, done))
        [committed] = consumer.committed([TopicPartition(source, 0)], PATIENCE)
        ring.equal(committed.offset, done, f"the position after round {rounds}")
    consumer.close()
    expected = [str(row) for row in range(rows)]
    ring.equal(values(ring, sink), expected, "what was committed")
    uncommitted = len(values(ring, sink, "read_uncommitted"))
    assert uncommitted > rows, "no round was aborted"
    for topic in (source, sink):
        ring.cluster.delete_topic(topic)


def fencing(ring):
    topic = ring.topic()
    ring.cluster.create_topic(topic, 1)
    first = transactional(ring, topic)
    first.begin_transaction()
    first.produce(topic, b"lost", partition=0)
    first.flush(PATIENCE)
    second = transactional(ring, topic)
    code = None
    try:
        first.produce(topic, b"late", partition=0)
        first.commit_transaction(PATIENCE)
    except KafkaException as refused:
        code = refused.args[0].code()
    ring.equal(code, KafkaError._FENCED, "what the first producer is told")
    second.begin_transaction()
    second.produce(topic, b"kept", partition=0)
    second.commit_transaction(PATIENCE)
    ring.equal(values(ring, topic), ["kept"], "what was committed")
    ring.cluster.delete_topic(topic)


def out_of_time(ring):
    topic = ring.topic()
    ring.cluster.create_topic(topic, 1)
    producer = transactional(ring, topic, **{"transaction.timeout.ms": 1000})
    producer.begin_transaction()
    producer.produce(topic, b"slow", partition=0)
    producer.flush(PATIENCE)
    plain = ring.cluster.producer()
    plain.produce(topic, b"plain", partition=0)
    plain.flush(PATIENCE)
    # A broker looks for such transactions every ten seconds, unless it is told otherwise.
    deadline = time.monotonic() + PATIENCE
    while values(ring, topic) != ["plain"]:
        assert time.monotonic() < deadline, "the transaction is still open"
        time.sleep(0.2)
    try:
        producer.commit_transaction(PATIENCE)
        raise AssertionError("the commit went through")
    except KafkaException:
        pass
    ring.equal(values(ring, topic), ["plain"], "what was committed")
    ring.cluster.delete_topic(topic)
