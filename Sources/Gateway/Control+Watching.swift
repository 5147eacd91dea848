// What those who watch a node are told: numbers that others keep, gathered here. Nothing of it is asked of a worker: the
// counters are read where they lie.

import EventLoop
import Identity
import LinuxIO
import Membership
package import Primitives
import RateLimiting
import RedisClient
import Synchronization

/// What Redis's clock shows against this machine's, from the last heartbeat.
package struct ClockReading: Sendable {
    /// Redis's time less ours.
    package var offset: TimeSpan
    /// The most by which `offset` can be wrong: half a round trip.
    package var bound: TimeSpan
    /// How long that heartbeat took.
    package var roundTrip: TimeSpan
}

extension Control {
    package var traffic: TrafficRegistry { node.traffic }
    package var services: [Service] { node.services }
    package var workerCount: Int { node.workerCount }

    /// How long Redis took for decisions; `nil` where limits are in memory.
    package var limiterRoundTrips: DurationSummary? { generation.limiterContext?.roundTrips }

    package var clockReading: ClockReading? {
        guard let sample = link?.clockSample else { return nil }
        let trip = sample.receivedAt - sample.sentAt
        // The sample was taken half a round trip before it was received, if both ways are alike.
        let age = SystemClock.monotonic() - sample.receivedAt + trip / 2
        let wall = saturatingSubtract(SystemClock.wallMicroseconds(), age.microseconds)
        return ClockReading(
            offset: .microseconds(saturatingSubtract(sample.time.microseconds, wall)), bound: trip / 2, roundTrip: trip)
    }

    /// What was lost of the access log, because what it was written to was too slow, or took nothing.
    package var accessLogLosses: LogLosses { generation.accessLogLosses }
    package var accessBytesWaiting: Int { node.accessLogSink?.waiting ?? 0 }
}

// MARK: The last minutes

/// Who is refused by a policy.
package struct RefusedClient: Sendable {
    /// `ip:203.0.113.7`.
    package var subject: String
    package var policy: Int
    package var count: Int
}

extension Control {
    /// Begins to keep the history; the admin listener asks for it.
    package func watchTraffic() {
        guard historyTimer == nil else { return }
        historyTimer = LoopTimer(loop) { [weak self] in self?.lookAtTraffic() }
        lookAtTraffic()
    }

    private func lookAtTraffic() {
        historyTimer?.schedule(after: TrafficHistory.interval)
        history.look(
            node.services, node.traffic, limitStatus, refused: node.refused, redis: limiterRoundTrips,
            at: loop.now, wall: SystemClock.wallMicroseconds())
        if let rate = history.points.last?.rate {
            link?.activity = NodeActivity(
                requestsPerSecond: rate.requests, errorsPerSecond: rate.errors, p99: rate.p99,
                version: Build.version, configuration: configurationVersion)
        }
    }

    /// Whom this node has refused most in the last minutes, over all workers.
    package func refusedClients(atMost countMax: Int) -> [RefusedClient] {
        var counts: [SubjectKey: Int] = [:]
        for table in node.refused { for entry in table.entries { counts[entry.subject, default: 0] += entry.count } }
        return counts.sorted { $0.value > $1.value }.prefix(countMax).map { subject, count in
            var text: [UInt8] = []
            subject.appendText(to: &text)
            return RefusedClient(
                subject: String(decoding: text, as: UTF8.self), policy: Int(subject.policy), count: count)
        }
    }
}
