// What was admitted, by whom, and when by Redis's own clock: `TIME SOURCE COUNT KEY`, a line for each transaction. With
// the logs of all nodes together anybody can check that no window holds more than its limit.

import Identity
import LinuxIO
import Primitives
import RateLimiting

final class DecisionLog: DecisionRecorder {
    private let sink: LogSink
    /// By the number of the policy.
    private let keys: [WindowKey]
    /// What holds for windows does not hold for requests that run: a lease is free again when its request has ended.
    private let isWindow: [Bool]

    init(_ sink: LogSink, _ policies: [Policy], _ services: [String]) {
        self.sink = sink
        keys = policies.map { WindowKey($0, services: services) }
        isWindow = policies.map { $0.form != .leases }
    }

    func reopen() { sink.reopen() }

    /// Who hears of its troubles: a log with holes proves nothing.
    func listen(_ listener: @escaping LogSink.Listener) { sink.listen(listener) }

    /// Writes what waits; nothing more may come.
    func close() { sink.close() }

    func admitted(_ count: Int, _ subject: SubjectKey, by source: VerdictSource, at time: RedisTime?) {
        guard isWindow[Int(subject.policy)] else { return }
        let name =
            switch source {
            case .window, .fullWindow: "window"
            case .share: "share"
            case .open: "open"
            case .closed: "closed"
            case .bucket: "bucket"
            }
        // Until Redis has been heard of, this machine's clock is the best guess.
        let microseconds = time?.microseconds ?? SystemClock.wallMicroseconds()
        sink.write(
            Array("\(microseconds) \(name) \(count) \(keys[Int(subject.policy)].text(subject))\n".utf8), count: 1)
    }
}
