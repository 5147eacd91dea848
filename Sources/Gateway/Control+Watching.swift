// What those who watch a node are told: numbers that others keep, gathered here. Nothing of it is asked of a worker: the
// counters are read where they lie.

import EventLoop
import LinuxIO
import Membership
package import Primitives
package import RateLimiting
import RedisClient

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

    /// What becomes of limits without Redis; `nil` where there are none, or no Redis.
    package var lossRule: LossRule? { generation.limiterContext?.lossRule }

    package var clockReading: ClockReading? {
        guard let sample = link?.clockSample else { return nil }
        let trip = sample.receivedAt - sample.sentAt
        // The sample was taken half a round trip before it was received, if both ways are alike.
        let age = SystemClock.monotonic() - sample.receivedAt + trip / 2
        let wall = saturatingSubtract(SystemClock.wallMicroseconds(), age.microseconds)
        return ClockReading(
            offset: .microseconds(saturatingSubtract(sample.time.microseconds, wall)), bound: trip / 2, roundTrip: trip)
    }

    package var spanCounts: SpanCounts { generation.spanCounts }

    /// What was lost of the access log, because what it was written to was too slow, or took nothing.
    package var accessLogLosses: LogLosses { generation.accessLogLosses }

    /// The same of the events.
    package var eventLogLosses: LogLosses? { eventLog?.losses }
}

// MARK: The last minutes

extension Control {
    /// Begins to keep the history; the admin listener asks for it.
    package func watchTraffic() {
        guard historyTimer == nil else { return }
        historyTimer = LoopTimer(loop) { [weak self] in self?.lookAtTraffic() }
        weighMemory()
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
                version: Build.version, configuration: sharedName)
        }
    }
}
