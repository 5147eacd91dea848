import Health
import Primitives
import Testing

/// A monitor, and a backend whose probes answer at once with what the test says.
private struct Walk {
    var monitor: BackendMonitor
    var now = moment(.zero).monotonic
    var random = SplitMix64(seed: 11)
    var attempts: UInt64 = 0
    var changes = 0
    var result = ProbeResult.succeeded

    init(_ settings: HealthSettings = HealthSettings()) {
        monitor = BackendMonitor(settings: settings, now: now, random: &random)
    }

    mutating func note(_ change: OpinionChange) { changes += change == .changed ? 1 : 0 }

    /// Advances to the next deadline and does what is due; returns how much time has passed.
    @discardableResult
    mutating func step() -> TimeSpan {
        let before = now
        now = max(now, monitor.nextDeadline)
        note(monitor.tick(at: now, random: &random))
        if monitor.probeIsDue(at: now) {
            attempts += 1
            monitor.probeStarted(attempt: attempts, at: now)
            note(monitor.probeFinished(attempt: attempts, result, at: now, random: &random))
        }
        return now - before
    }

    mutating func fail(_ times: Int) {
        for _ in 0..<times { note(monitor.requestFailed(.status(502), at: now, random: &random)) }
    }

    mutating func place(accused: Bool) {
        monitor.place(
            rank: 0, of: 3, isDownForAll: false, accusers: accused ? 1 : 0, othersAccuse: accused, at: now,
            random: &random)
    }

    /// Probes until the first has been done.
    mutating func settle() { step() }
}

private func isAbout(_ span: TimeSpan, _ expected: TimeSpan) -> Bool {
    span >= expected * 9 / 10 && span <= expected * 11 / 10
}

@Suite struct BackendMonitorTests {
    @Test("the first probe is due within half a second, and others follow an interval apart")
    func calm() {
        var walk = Walk()
        #expect(walk.step() <= .milliseconds(500))
        for _ in 0..<50 { #expect(isAbout(walk.step(), .seconds(30))) }
        #expect(walk.monitor.standing == .up)
        #expect(walk.attempts == 51)
    }

    @Test("nodes that start together do not go on probing together")
    func jitter() {
        var random = SplitMix64(seed: 1)
        let deadlines = (0..<20).map { _ in
            BackendMonitor(settings: HealthSettings(), now: moment(.zero).monotonic, random: &random).nextDeadline
        }
        #expect(Set(deadlines).count > 15)
    }

    @Test("the interval shortens after one failure, more when down, and is long again after enough successes")
    func pace() {
        var walk = Walk()
        walk.settle()
        walk.result = .failed(.timeout)
        #expect(isAbout(walk.step(), .seconds(30)))
        #expect(isAbout(walk.step(), .seconds(10)))
        #expect(walk.monitor.standing == .up)
        #expect(isAbout(walk.step(), .seconds(10)))
        #expect(walk.monitor.standing == .downByProbe)
        #expect(isAbout(walk.step(), .seconds(5)))
        walk.result = .succeeded
        #expect(isAbout(walk.step(), .seconds(5)))
        #expect(isAbout(walk.step(), .seconds(5)))
        #expect(walk.monitor.standing == .downByProbe)
        #expect(isAbout(walk.step(), .seconds(5)))
        #expect(walk.monitor.standing == .up)
        #expect(isAbout(walk.step(), .seconds(30)))
        #expect(walk.changes == 2)
    }

    @Test("after a warning the short interval stays until enough probes have succeeded in a row")
    func warning() {
        var walk = Walk()
        walk.settle()
        walk.result = .failed(refused)
        walk.step()
        walk.result = .succeeded
        for _ in 0..<2 { #expect(isAbout(walk.step(), .seconds(10))) }
        #expect(isAbout(walk.step(), .seconds(10)))
        #expect(isAbout(walk.step(), .seconds(30)))
        #expect(walk.changes == 0)
    }

    @Test("failures that are not consecutive do not add up", arguments: [2, 3, 5])
    func interrupted(failures: Int) {
        var settings = HealthSettings()
        settings.failures = failures
        var walk = Walk(settings)
        for _ in 0..<10 {
            walk.result = .failed(.timeout)
            for _ in 1..<failures { walk.step() }
            walk.result = .succeeded
            walk.step()
            walk.fail(failures - 1)
            walk.monitor.requestSucceeded()
        }
        #expect(walk.monitor.standing == .up)
    }

    @Test("a success in between starts the way back anew")
    func interruptedRecovery() {
        var walk = Walk()
        walk.result = .failed(.status(500))
        for _ in 0..<3 { walk.step() }
        #expect(walk.monitor.evidence == "3 failed probes: status 500")
        walk.result = .succeeded
        walk.step()
        walk.step()
        walk.result = .failed(.status(500))
        walk.step()
        walk.result = .succeeded
        walk.step()
        walk.step()
        #expect(walk.monitor.standing == .downByProbe)
        walk.step()
        #expect(walk.monitor.standing == .up)
        #expect(walk.monitor.evidence == "3 successful probes")
    }

    @Test("failed requests lead to a verdict and a probe at once; where it fails too, the verdict is one of probes")
    func trafficThenProbe() {
        var walk = Walk()
        walk.settle()
        walk.fail(2)
        #expect(walk.monitor.standing == .up)
        walk.now = walk.now + .seconds(1)
        walk.fail(1)
        #expect(walk.monitor.standing == .downByTraffic(until: walk.now + .seconds(30)))
        #expect(walk.monitor.evidence == "3 failed requests: status 502")
        #expect(walk.monitor.probeIsDue(at: walk.now))
        walk.result = .failed(refused)
        #expect(walk.step() == .zero)
        #expect(walk.monitor.standing == .downByProbe)
        walk.result = .succeeded
        for _ in 0..<3 { walk.step() }
        #expect(walk.monitor.standing == .up)
    }

    @Test("where probes succeed, a verdict from traffic stands for its cooldown, and failed requests count anew")
    func cooldown() {
        var walk = Walk()
        walk.settle()
        walk.fail(3)
        let start = walk.now
        while walk.monitor.standing != .up { walk.step() }
        #expect(walk.now - start == .seconds(30))
        #expect(walk.attempts > 4)
        walk.fail(2)
        #expect(walk.monitor.standing == .up)
        // So soon after its return it stays out twice as long.
        walk.fail(1)
        #expect(walk.monitor.standing == .downByTraffic(until: walk.now + .seconds(60)))
    }

    @Test("a backend that fails again soon stays out longer each time, to a bound, and is forgiven when it has lasted")
    func flapping() {
        var walk = Walk()
        walk.settle()
        var stays: [TimeSpan] = []
        for _ in 0..<7 {
            walk.fail(3)
            let start = walk.now
            while walk.monitor.standing != .up { walk.step() }
            stays.append(walk.now - start)
        }
        #expect(stays == [30, 60, 120, 240, 300, 300, 300].map(TimeSpan.seconds))
        let start = walk.now
        while walk.now - start < .seconds(1_300) { walk.step() }
        walk.fail(3)
        #expect(walk.monitor.standing == .downByTraffic(until: walk.now + .seconds(30)))
    }

    @Test("good probes bring a flapping backend back no sooner than its damping allows")
    func flappingProbes() {
        var walk = Walk()
        walk.settle()
        var stays: [TimeSpan] = []
        for _ in 0..<4 {
            walk.result = .failed(refused)
            while walk.monitor.standing == .up { walk.step() }
            let start = walk.now
            walk.result = .succeeded
            while walk.monitor.standing != .up { walk.step() }
            stays.append(walk.now - start)
        }
        #expect(isAbout(stays[0], .seconds(15)))
        #expect(stays[1] >= .seconds(60))
        #expect(stays[2] >= .seconds(120))
        #expect(stays[3] >= .seconds(240))
    }

    @Test("one failed request brings the next probe nearer, until enough probes have succeeded")
    func hastened() {
        var walk = Walk()
        for _ in 0..<5 { walk.step() }
        walk.fail(1)
        for _ in 0..<3 { #expect(isAbout(walk.step(), .seconds(10))) }
        #expect(isAbout(walk.step(), .seconds(30)))
    }

    @Test("one failed confirming probe is a vote, a successful one is none")
    func confirming() {
        var walk = Walk()
        walk.settle()
        walk.now = walk.now + .seconds(1)
        walk.monitor.confirm(at: walk.now)
        #expect(walk.step() == .zero)
        #expect(walk.monitor.standing == .up)
        walk.now = walk.now + .seconds(1)
        walk.monitor.confirm(at: walk.now)
        walk.result = .failed(refused)
        #expect(walk.step() == .zero)
        #expect(walk.monitor.standing == .downByProbe)
        #expect(walk.monitor.evidence == "a failed confirming probe: connection refused")
    }

    @Test("a probe that was under way when the news came is repeated if it succeeds, and counts if it fails")
    func confirmingUnderWay() {
        var walk = Walk()
        walk.settle()
        walk.now = max(walk.now, walk.monitor.nextDeadline)
        walk.monitor.probeStarted(attempt: 100, at: walk.now)
        walk.now = walk.now + .seconds(1)
        walk.monitor.confirm(at: walk.now)
        var twin = walk
        walk.note(walk.monitor.probeFinished(attempt: 100, .succeeded, at: walk.now, random: &walk.random))
        #expect(walk.monitor.probeIsDue(at: walk.now))
        walk.result = .failed(.timeout)
        walk.step()
        #expect(walk.monitor.standing == .downByProbe)
        twin.note(twin.monitor.probeFinished(attempt: 100, .failed(.timeout), at: twin.now, random: &twin.random))
        #expect(twin.monitor.standing == .downByProbe)
    }

    @Test("a stream of news does not make a stream of probes")
    func confirmingFlood() {
        var walk = Walk()
        walk.settle()
        let start = walk.now
        let before = walk.attempts
        while walk.now - start < .seconds(1) {
            walk.monitor.confirm(at: walk.now)
            if walk.monitor.probeIsDue(at: walk.now) { walk.step() }
            walk.now = walk.now + .milliseconds(1)
        }
        #expect(walk.attempts - before <= 21)
        #expect(walk.attempts - before >= 15)
    }

    @Test("a probe that nobody finishes counts as a timeout, and its late result is nothing")
    func lost() {
        var walk = Walk()
        walk.settle()
        for attempt: UInt64 in [50, 51, 52] {
            walk.now = walk.monitor.nextDeadline
            walk.monitor.probeStarted(attempt: attempt, at: walk.now)
            #expect(walk.monitor.nextDeadline - walk.now == .seconds(6))
            walk.now = walk.monitor.nextDeadline
            walk.note(walk.monitor.tick(at: walk.now, random: &walk.random))
        }
        #expect(walk.monitor.standing == .downByProbe)
        for attempt: UInt64 in [50, 51, 52, 99] {
            walk.note(walk.monitor.probeFinished(attempt: attempt, .succeeded, at: walk.now, random: &walk.random))
        }
        #expect(walk.monitor.standing == .downByProbe)
        #expect(walk.changes == 1)
    }

    @Test("a backend that others suspect is watched as after a failure")
    func suspected() {
        var walk = Walk()
        for _ in 0..<4 { walk.step() }
        walk.place(accused: true)
        for _ in 0..<5 { #expect(isAbout(walk.step(), .seconds(10))) }
        walk.place(accused: false)
        walk.step()
        #expect(isAbout(walk.step(), .seconds(30)))
    }

    @Test("without probes traffic alone decides, and the cooldown ends its verdicts")
    func passive() {
        var settings = HealthSettings()
        settings.active = false
        var walk = Walk(settings)
        #expect(walk.monitor.nextDeadline == .distantFuture)
        walk.monitor.confirm(at: walk.now)
        #expect(!walk.monitor.probeIsDue(at: walk.now))
        walk.fail(3)
        #expect(walk.step() == .seconds(30))
        #expect(walk.monitor.standing == .up)
        #expect(walk.attempts == 0)
    }

    @Test("new settings keep what is known; without probes a verdict of probes turns into one that ends")
    func reconfigured() {
        var walk = Walk()
        walk.result = .failed(.timeout)
        for _ in 0..<3 { walk.step() }
        var settings = HealthSettings()
        settings.interval = .seconds(1)
        walk.monitor.reconfigure(settings, at: walk.now, random: &walk.random)
        #expect(walk.monitor.standing == .downByProbe)
        #expect(walk.monitor.nextDeadline - walk.now <= .milliseconds(500))
        settings.active = false
        walk.monitor.reconfigure(settings, at: walk.now, random: &walk.random)
        #expect(walk.monitor.standing == .downByTraffic(until: walk.now + .seconds(30)))
        #expect(walk.step() == .seconds(30))
        #expect(walk.monitor.standing == .up)
    }

    @Test("no setting makes a monitor spin, trap or wait for ever", arguments: [0, -1, .min, .max] as [Int])
    func absurd(number: Int) {
        var settings = HealthSettings()
        let span = TimeSpan.nanoseconds(Int64(number))
        settings.failures = number
        settings.successes = number
        settings.interval = span
        settings.warningInterval = span
        settings.downInterval = span
        settings.timeout = span
        settings.cooldown = span
        settings.cooldownMax = span
        var walk = Walk(settings)
        let start = walk.now
        for index in 0..<100 {
            walk.result = index % 3 == 0 ? .failed(.timeout) : .succeeded
            walk.fail(1)
            walk.monitor.confirm(at: walk.now)
            walk.step()
        }
        #expect(walk.attempts > 5)
        #expect(walk.now - start >= HealthSettings.probeGapMin * Int64(walk.attempts - 1))
    }
}
