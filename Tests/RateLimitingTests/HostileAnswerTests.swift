// A server that answers in the right shape, with numbers that no Redis gives.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private final class Silent: LimitRequester {
    func limitDecided(token: UInt64, verdict: Verdict) {}
    func limitsDecided(token: UInt64, _ report: PolicyReport) {}
}

/// The words of a reply's values, in the order of their arrival.
private func words(_ reply: Reply) -> [String] {
    (0..<reply.count).map { index in
        switch reply.kind(index) {
        case .array: "*\(reply.elementCount(index) ?? 0)\r\n"
        case .integer: ":\(reply.integer(index) ?? 0)\r\n"
        case .bulk: "$\(reply.byteCount(index))\r\n\(reply.text(index))\r\n"
        case .status: "+\(reply.text(index))\r\n"
        case .error: "-\(reply.text(index))\r\n"
        case .null: "$-1\r\n"
        }
    }
}

private func reply(_ words: [String]) throws -> Reply {
    var reader = ReplyReader()
    let bytes = Array(words.joined().utf8)
    reader.feed(bytes.span)
    try #require(try reader.next())
    return reader.reply
}

@Suite("Numbers that no Redis gives")
struct HostileAnswerTests {
    struct Form: CustomTestStringConvertible {
        let testDescription: String
        var policies: [Policy]
        var costs: [UInt16] = []
        var tellsRemaining = true
        var isCutOff = false
    }

    private static func policy(_ name: String, _ form: PolicyForm = .window, limit: Int = 3, costMax: Int = 1) -> Policy
    {
        Policy(name: name, limit: limit, window: .seconds(10), burst: 3, form: form, costMax: costMax)
    }

    static let forms = [
        Form(testDescription: "an exact window", policies: [policy("a")]),
        Form(
            testDescription: "one whose clients are not told what remains", policies: [policy("a")],
            tellsRemaining: false),
        Form(testDescription: "requests that cost 2", policies: [policy("a", costMax: 2)], costs: [2]),
        Form(testDescription: "buckets", policies: [policy("a", .buckets)]),
        Form(testDescription: "leases", policies: [policy("a", .leases)]),
        Form(testDescription: "a node is cut off", policies: [policy("a", limit: 9)], isCutOff: true),
        Form(
            testDescription: "buckets, a node is cut off", policies: [policy("a", .buckets, limit: 9)], isCutOff: true),
        Form(testDescription: "two policies", policies: [policy("a"), policy("b", .buckets)]),
    ]

    static let numbers = [
        "9223372036854775807", "-9223372036854775808", "-1", "0", "4611686018427387904", "9007199254740993",
        "1000000000000000000", "281474976710656",
    ]

    @Test("whatever number stands in whatever place, the node goes on, and nobody waits for ever", arguments: forms)
    func numbers(form: Form) throws {
        let server = try RedisServer()
        let redis = try server.client()
        var places = 1
        var place = 0
        while place < places {
            for number in Self.numbers {
                for word in [":\(number)\r\n", "$\(number.utf8.count)\r\n\(number)\r\n"] {
                    try redis("FLUSHALL")
                    places = try answer(form, redis) { words in
                        if place < words.count, words[place].first != "*" { words[place] = word }
                    }
                }
            }
            place += 1
        }
        #expect(places > 5)
    }

    /// Asks twice, changes each answer, and lets the time pass. Returns how many values the longest had.
    private func answer(
        _ form: Form, _ redis: RedisTestClient, _ change: (inout [String]) -> Void
    ) throws -> Int {
        let context = LimiterContext(
            policies: form.policies, services: [], tellsRemaining: form.tellsRemaining, lossRule: .share,
            timeout: .milliseconds(50), boot: 0xb007, seed: 5)
        if form.isCutOff { context.nodesChanged(running: 3, cutOff: 1, sharers: 3) }
        var machine = WindowMachine(context, worker: 0)
        var now = SystemClock.monotonic()
        machine.connected(ServerTimeSample(sentAt: now, receivedAt: now, time: try redis.time()))
        let silent = Silent()
        var longest = 0
        for token in 0..<2 as Range<UInt64> {
            let subjects = form.policies.indices.map { SubjectKey(.v4Loopback, policy: UInt8($0)) }
            if subjects.count == 1, form.costs.isEmpty {
                _ = machine.ask(subjects[0], silent, token: token, at: now)
            } else {
                _ = machine.ask(all: subjects, costs: form.costs, silent, token: token, at: now)
            }
            var sent = 0
            while let transmission = machine.next(at: now), sent < 20 {
                sent += 1
                let answer =
                    switch transmission.form {
                    case .command: try redis.command { machine.write(transmission, to: &$0) }
                    case .transaction: try redis.transaction { machine.write(transmission, to: &$0) }
                    }
                var words = words(answer)
                if transmission.mayShare {
                    longest = max(longest, words.count)
                    if words.count > 1 { change(&words) }
                }
                machine.replied(transmission.token, try reply(words), at: now)
                if machine.takeMistrust() != nil {
                    machine.disconnected(.malformed("numbers"), at: now)
                    machine.connected(ServerTimeSample(sentAt: now, receivedAt: now, time: try redis.time()))
                }
                _ = machine.takeEvents()
            }
            now = now + .milliseconds(60)
            machine.expire(through: now, at: now)
            var answers: [LimitAnswer] = []
            machine.takeAnswers(into: &answers)
            for answer in answers { _ = machine.takeReport(answer) }
        }
        #expect(machine.joins.count == 0 && machine.nextDeadline == nil)
        return longest
    }
}
