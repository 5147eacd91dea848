// What every limit promises, whoever decides: the window in Redis, the share of a node that has lost Redis, and the
// token bucket of a node without one.

import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

/// Somebody who decides, for three requests in a window of 100 ms.
private protocol Decider {
    func decide(_ subject: SubjectKey) throws -> Verdict
    func pass(_ time: TimeSpan)
}

enum DeciderKind: CaseIterable, Sendable { case redis, share, bucket }

private let limit = 3
private let window = TimeSpan.milliseconds(100)

private final class RedisDecider: Decider {
    private let bench: MachineBench

    init(lost: Bool) throws {
        bench = try MachineBench(limit: limit, window: window, rule: .share)
        if !lost { try bench.connect() }
    }

    func decide(_ subject: SubjectKey) throws -> Verdict {
        bench.subject = subject
        bench.ask()
        try bench.pump()
        return try #require(bench.asker.verdicts[bench.nextToken]?.last)
    }

    /// Redis's clock is nobody's to move: time passes by itself.
    func pass(_ time: TimeSpan) {
        let end = SystemClock.monotonic() + time
        while SystemClock.monotonic() < end {}
    }
}

private final class BucketDecider: Decider {
    private let store = TokenBucketStore(Policy(name: "default", limit: limit, window: window, burst: limit), seed: 1)
    private var now = MonotonicTime(nanoseconds: 1)

    func decide(_ subject: SubjectKey) -> Verdict { store.take(subject, at: now) }
    func pass(_ time: TimeSpan) { now = now + time }
}

private func decider(_ kind: DeciderKind) throws -> any Decider {
    switch kind {
    case .redis: try RedisDecider(lost: false)
    case .share: try RedisDecider(lost: true)
    case .bucket: BucketDecider()
    }
}

private func subject(_ n: UInt32) -> SubjectKey { SubjectKey(IPAddress(v4: n)) }

extension Verdict {
    fileprivate var isAdmission: Bool {
        switch self {
        case .admit: true
        case .refuse: false
        }
    }
}

@Suite("Every limit")
struct BehaviourTests {
    @Test("admits its limit at once and refuses what is more", arguments: DeciderKind.allCases)
    func limits(kind: DeciderKind) throws {
        let decider = try decider(kind)
        let verdicts = try (0..<10).map { _ in try decider.decide(subject(1)).isAdmission }
        #expect(verdicts.prefix(3).allSatisfy { $0 })
        #expect(verdicts.dropFirst(3).filter { $0 }.count <= 1)
    }

    @Test("lets whoever waits as told pass", arguments: DeciderKind.allCases)
    func retryAfter(kind: DeciderKind) throws {
        let decider = try decider(kind)
        for _ in 0..<20 {
            guard case .refuse(let wait) = try decider.decide(subject(1)) else { continue }
            #expect(wait > .zero && wait < .seconds(2))
            decider.pass(wait)
            #expect(try decider.decide(subject(1)).isAdmission)
        }
    }

    @Test(
        "charges refused requests nothing: hammering costs a client no part of its limit",
        arguments: DeciderKind.allCases)
    func refusedConsumeNothing(kind: DeciderKind) throws {
        let decider = try decider(kind)
        for _ in 0..<300 { _ = try decider.decide(subject(1)) }
        // All of the burst has left after a window and its slack; hammering has not put it off.
        decider.pass(window + .milliseconds(20))
        let verdicts = try (0..<3).map { _ in try decider.decide(subject(1)).isAdmission }
        #expect(verdicts == [true, true, true])
    }

    @Test("keeps clients apart", arguments: DeciderKind.allCases)
    func apart(kind: DeciderKind) throws {
        let decider = try decider(kind)
        for _ in 0..<20 { _ = try decider.decide(subject(1)) }
        for n in 2..<20 as Range<UInt32> { #expect(try decider.decide(subject(n)).isAdmission) }
    }
}
