import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import Testing

private func mono(_ nanoseconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: nanoseconds) }

/// A server whose clock runs at its own rate, behind a link with random delays, seen by a node with a clock of its own.
private struct World {
    var random: SplitMix64
    /// True time, which nobody can read, in nanoseconds.
    var now: Int64 = 0
    var nodeOffset: Int64
    var serverOffset: Int64
    /// How much faster the server's clock runs, in millionths.
    var serverDrift: Int64
    var delayMax: Int64

    func node(_ time: Int64) -> MonotonicTime { mono(time + nodeOffset) }
    func server(_ time: Int64) -> RedisTime {
        RedisTime(microseconds: (serverOffset + time + time / 1_000_000 * serverDrift) / 1_000)
    }
    mutating func delay() -> Int64 { Int64.random(in: 20_000...delayMax, using: &random) }

    /// One round trip. Returns what `clock` had promised for the execution.
    mutating func roundTrip(_ clock: inout ServerClock) -> (lower: RedisTime, time: RedisTime, upper: RedisTime)? {
        let sent = now
        let executed = sent + delay()
        now = executed + delay()
        let promised = clock.isKnown ? (clock.lower(at: node(sent)), clock.upper(at: node(sent))) : nil
        let time = server(executed)
        clock.observe(ServerTimeSample(sentAt: node(sent), receivedAt: node(now), time: time))
        return promised.map { ($0.0, time, $0.1) }
    }
}

@Suite("The server's clock")
struct ServerClockTests {
    @Test(
        "bounds hold for clocks that drift as clocks do, and lateness is rare and small",
        arguments: [-400, 0, 400] as [Int64])
    func boundsHold(drift: Int64) {
        let seed = SystemClock.random64()
        var world = World(
            random: SplitMix64(seed: seed), nodeOffset: 77_000_000_000, serverOffset: 1_700_000_000_000_000_000,
            serverDrift: drift, delayMax: 3_000_000)
        var clock = ServerClock()
        var late = 0
        let rounds = 20_000
        for _ in 0..<rounds {
            world.now += Int64.random(in: 0...5_000_000, using: &world.random)
            guard let (lower, time, upper) = world.roundTrip(&clock) else { continue }
            #expect(lower <= time, "seed \(seed)")
            #expect(upper - lower < .milliseconds(16), "seed \(seed)")
            if time > upper { late += 1 }
        }
        #expect(clock.steps == 0, "seed \(seed)")
        #expect(late < rounds / 200, "seed \(seed): \(late) late")
    }

    @Test("under steady load the slack stays below one hundredth of a window of a second")
    func slack() {
        var world = World(
            random: SplitMix64(seed: 5), nodeOffset: -5, serverOffset: 1_700_000_000_000_000_000, serverDrift: 50,
            delayMax: 400_000)
        var clock = ServerClock()
        for _ in 0..<2_000 {
            world.now += 200_000
            guard let (lower, _, upper) = world.roundTrip(&clock) else { continue }
            #expect(upper - lower < .milliseconds(4))
        }
    }

    @Test("bounds widen with age, so that they hold after an idle hour")
    func age() {
        var world = World(
            random: SplitMix64(seed: 6), nodeOffset: 1, serverOffset: 1_700_000_000_000_000_000, serverDrift: 450,
            delayMax: 400_000)
        var clock = ServerClock()
        for _ in 0..<10 { _ = world.roundTrip(&clock) }
        world.now += 3_600_000_000_000
        let node = world.node(world.now)
        let server = world.server(world.now)
        #expect(clock.lower(at: node) <= server && server <= clock.upper(at: node))
    }

    @Test(
        "a clock that is set, in either direction, starts anew and is told",
        arguments: [-60_000_000, 60_000_000, 5_000])
    func step(microseconds: Int64) {
        var clock = ServerClock()
        let at = { (n: Int64) in mono(1_000_000_000 + n * 1_000_000) }
        let time = { (n: Int64, shift: Int64) in
            RedisTime(microseconds: 1_700_000_000_000_000 + n * 1_000 + 500 + shift)
        }
        for n in 0..<10 as Range<Int64> {
            let sample = ServerTimeSample(sentAt: at(n), receivedAt: at(n + 1), time: time(n, 0))
            #expect(clock.observe(sample) == .agreed)
        }
        let sample = ServerTimeSample(sentAt: at(20), receivedAt: at(21), time: time(20, microseconds))
        #expect(clock.observe(sample) == .stepped)
        #expect(clock.steps == 1)
        #expect(clock.lower(at: at(21)) <= time(21, microseconds) && time(21, microseconds) <= clock.upper(at: at(21)))
        let next = ServerTimeSample(sentAt: at(22), receivedAt: at(23), time: time(22, microseconds))
        #expect(clock.observe(next) == .agreed)
    }

    @Test(
        "after a step forward the lower bound stays behind until a window has passed, also over a new connection",
        arguments: [false, true])
    func stepForward(reconnects: Bool) {
        var clock = ServerClock(window: .seconds(1))
        let at = { (milliseconds: Int64) in mono(1_000_000_000 + milliseconds * 1_000_000) }
        let time = { (milliseconds: Int64, shift: Int64) in
            RedisTime(microseconds: 1_700_000_000_000_000 + milliseconds * 1_000 + 500 + shift)
        }
        for n in 0..<10 as Range<Int64> {
            clock.observe(ServerTimeSample(sentAt: at(n), receivedAt: at(n + 1), time: time(n, 0)))
        }
        let step: Int64 = 30_000_000
        let sample = ServerTimeSample(sentAt: at(20), receivedAt: at(21), time: time(20, step))
        if reconnects { clock.reconnected(sample) } else { clock.observe(sample) }
        #expect(!clock.isSettled(at: at(21)))
        for n in stride(from: 22, to: 1_020, by: 10) as StrideTo<Int64> {
            clock.observe(ServerTimeSample(sentAt: at(n), receivedAt: at(n + 1), time: time(n, step)))
            // What was admitted just before the step, at 19 ms, does not leave before its window is over.
            #expect(clock.lower(at: at(n)) - .seconds(1) <= time(19, 0))
            #expect(clock.upper(at: at(n)) >= time(n, step))
        }
        #expect(clock.lower(at: at(1_021)) > time(1_000, step))
        #expect(clock.isSettled(at: at(3_500)))
    }

    @Test(
        "a step forward that little was known to hide is allowed for as well, also over a new connection, and after a step back",
        arguments: [false, true], [false, true])
    func hiddenStep(reconnects: Bool, stepsBack: Bool) {
        var clock = ServerClock(window: .milliseconds(200))
        let at = { (milliseconds: Int64) in mono(1_000_000_000 + milliseconds * 1_000_000) }
        let time = { (milliseconds: Int64, shift: Int64) in
            RedisTime(microseconds: 1_700_000_000_000_000 + milliseconds * 1_000 + 500 + shift)
        }
        clock.observe(ServerTimeSample(sentAt: at(0), receivedAt: at(1), time: time(0, 300_000)))
        var before: Int64 = 300_000
        if stepsBack {
            // Forward, so that there is a lower bound of before already, and then back below it.
            clock.observe(ServerTimeSample(sentAt: at(10), receivedAt: at(11), time: time(10, 900_000)))
            before = 0
        }
        // A server that hung: what it says is half a second old, or the moment's.
        clock.reconnected(ServerTimeSample(sentAt: at(20), receivedAt: at(520), time: time(520, before)))
        let sample = ServerTimeSample(sentAt: at(530), receivedAt: at(531), time: time(530, before + 400_000))
        if reconnects { clock.reconnected(sample) } else { #expect(clock.observe(sample) == .agreed) }
        for n in stride(from: 531, to: 730, by: 10) as StrideTo<Int64> {
            // What others have scored before it, at 525 ms, does not leave before its window is over.
            #expect(clock.lower(at: at(n)) - .milliseconds(200) <= time(525, before))
        }
        #expect(clock.lower(at: at(740)) > time(730, before))
    }

    @Test(
        "after a step back the upper bound stays ahead until everybody has heard, also over a new connection",
        arguments: [false, true])
    func stepBack(reconnects: Bool) {
        var clock = ServerClock(window: .milliseconds(100))
        let at = { (milliseconds: Int64) in mono(1_000_000_000 + milliseconds * 1_000_000) }
        let time = { (milliseconds: Int64, shift: Int64) in
            RedisTime(microseconds: 1_700_000_000_000_000 + milliseconds * 1_000 + 500 + shift)
        }
        for n in stride(from: 0, to: 5_000, by: 50) as StrideTo<Int64> {
            clock.observe(ServerTimeSample(sentAt: at(n), receivedAt: at(n + 1), time: time(n, 0)))
        }
        var unaware = clock
        let step: Int64 = -3_000_000
        let sample = ServerTimeSample(sentAt: at(5_000), receivedAt: at(5_001), time: time(5_000, step))
        if reconnects { clock.reconnected(sample) } else { clock.observe(sample) }
        for n in stride(from: 5_010, to: 6_190, by: 10) as StrideTo<Int64> {
            clock.observe(ServerTimeSample(sentAt: at(n), receivedAt: at(n + 1), time: time(n, step)))
            // Whoever does not know yet drops nothing of this.
            #expect(clock.upper(at: at(n)) > unaware.lower(at: at(n)))
            #expect(clock.lower(at: at(n)) <= time(n, step))
        }
        unaware.observe(ServerTimeSample(sentAt: at(6_190), receivedAt: at(6_191), time: time(6_190, step)))
        #expect(clock.upper(at: at(6_300)) < time(6_350, step))
        // What whoever heard last has scored meanwhile has left before anybody clears it away.
        #expect(!clock.isSettled(at: at(7_300)) && clock.isSettled(at: at(7_600)))
    }

    @Test("what was late is allowed for, up to one hundredth of the window, and forgotten in half a minute")
    func lateness() {
        var clock = ServerClock()
        let base: Int64 = 1_000_000_000
        func observe(_ at: Int64, forward: Int64) {
            clock.observe(
                ServerTimeSample(
                    sentAt: mono(at), receivedAt: mono(at + forward + 50_000),
                    time: RedisTime(microseconds: (at + forward) / 1_000)))
        }
        observe(base, forward: 50_000)
        let usual = clock.upper(at: mono(base))
        observe(base + 1, forward: 4_000_000)
        let allowed = clock.upper(at: mono(base)) - usual
        #expect(allowed >= .milliseconds(3) && allowed < .milliseconds(6))
        observe(base + 2, forward: 900_000_000)
        #expect(clock.upper(at: mono(base)) - usual <= .milliseconds(8))
        // The bounds themselves widen by a thousandth of the time gone by.
        let later = base + 40_000_000_000
        let widened = TimeSpan.milliseconds(41)
        #expect(clock.upper(at: mono(later)) - (usual + (mono(later) - mono(base))) < widened)
    }

    @Test(
        "after an answer that says much more than was known, that moment is still the one from which on the bound is behind it",
        arguments: [1, 50, 99, 100, 101, 300] as [Int64])
    func momentAfterVagueness(milliseconds: Int64) {
        let window = TimeSpan.milliseconds(100)
        var clock = ServerClock(window: window)
        func observe(_ sent: Int64, _ received: Int64) {
            clock.observe(
                ServerTimeSample(
                    sentAt: mono(sent), receivedAt: mono(received), time: RedisTime(microseconds: 1_000 + sent / 1_000))
            )
        }
        // The node was kept waiting for its first answer, and not for the next.
        observe(0, 20_000_000)
        observe(30_000_000, 30_100_000)
        let target = RedisTime(microseconds: 31_000) + .milliseconds(milliseconds)
        let moment = clock.moment(after: target)
        #expect(clock.lower(at: moment) > target)
        #expect(clock.lower(at: moment - .milliseconds(1)) <= target)
    }

    @Test("the moment at which a server time has surely passed is neither early nor much too late")
    func moment() {
        var world = World(
            random: SplitMix64(seed: 7), nodeOffset: 3, serverOffset: 1_700_000_000_000_000_000, serverDrift: -300,
            delayMax: 400_000)
        var clock = ServerClock()
        for _ in 0..<50 { _ = world.roundTrip(&clock) }
        for ahead in [0, 1, 10, 500, 1_000, 60_000] as [Int64] {
            let target = world.server(world.now) + .milliseconds(ahead)
            let moment = clock.moment(after: target)
            #expect(clock.lower(at: moment) > target)
            #expect(clock.lower(at: moment) - target < .milliseconds(1))
        }
    }

    @Test("nonsense from a server is survived", arguments: [0, .max, .min, 1, -1] as [Int64])
    func nonsense(microseconds: Int64) {
        var clock = ServerClock()
        for at in [0, 1, .max, .min, 5] as [Int64] {
            clock.observe(
                ServerTimeSample(
                    sentAt: mono(at), receivedAt: mono(saturatingAdd(at, 1)),
                    time: RedisTime(microseconds: microseconds)))
            _ = clock.upper(at: mono(at))
            _ = clock.lower(at: mono(.max))
            _ = clock.lower(at: mono(.min))
            _ = clock.moment(after: RedisTime(microseconds: .max))
            _ = clock.moment(after: RedisTime(microseconds: .min))
        }
        #expect(clock.isKnown)
    }

    @Test("what is allowed for lateness and drift does not grow with the window for ever")
    func longWindows() {
        let month = TimeSpan.seconds(30 * 86_400)
        let now = mono(1_000_000_000)
        let time = RedisTime(microseconds: 1_700_000_000_000_000)
        for window in [TimeSpan.seconds(1), .seconds(3_600), month] {
            var clock = ServerClock(window: window)
            clock.observe(ServerTimeSample(sentAt: now, receivedAt: now, time: time))
            #expect(clock.upper(at: now) - time <= .milliseconds(11))
            // A transaction that was late by 20 s leaves half a second of caution behind, and what clocks may have
            // parted meanwhile.
            let later = now + .seconds(20)
            clock.observe(ServerTimeSample(sentAt: now, receivedAt: later, time: time + .seconds(20)))
            #expect(clock.upper(at: later) - time - .seconds(20) <= .milliseconds(525))
        }
        var clock = ServerClock(window: month)
        clock.observe(ServerTimeSample(sentAt: now, receivedAt: now, time: time))
        let wait = clock.moment(after: time + month) - now - month
        // Two clocks that lose a hundred millionths each part by 518 s in 30 days.
        #expect(wait >= .seconds(518) && wait <= .seconds(540))
        let hour = clock.moment(after: time + .seconds(600)) - now
        #expect(hour >= .milliseconds(600_600) && hour <= .milliseconds(600_610))
    }
}
