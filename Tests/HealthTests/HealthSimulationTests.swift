import Foundation
import Health
import Membership
import Primitives
import Testing

/// How many clusters are played. As many as a test run has time for; the environment asks for thousands.
private let rounds = ProcessInfo.processInfo.environment["SLUICE_SIMULATIONS"].flatMap { UInt64($0) } ?? 14

/// Three services: one whose backends die and fail, one that is always well but for one node's broken path, one whose
/// backends fail requests and never a probe.
private enum Cast {
    static func services(_ quorum: Quorum = .majority) -> [WatchedService] {
        var settings = HealthSettings()
        settings.quorum = quorum
        // Within the time that a run waits for everything to be well again.
        settings.cooldownMax = .seconds(60)
        return [
            WatchedService(name: "mortal", settings: settings, urls: ["http://m:1", "http://m:2", "http://m:3"]),
            WatchedService(name: "steady", settings: settings, urls: ["http://s:1", "http://s:2"]),
            WatchedService(name: "shaky", settings: settings, urls: ["http://k:1", "http://k:2"]),
        ]
    }
    static let mortal = 0..<3
    static let steady = 3..<5
    static let pathBroken = 3
    static let shaky = 5..<7
}

private struct Violation: Error, CustomStringConvertible { var description: String }

/// How long a backend may be dead before every node that can know has stopped using it. The slowest way is by probes
/// alone: an interval and two short ones, each up to a tenth longer, and three timeouts with the giving up.
private let deathBound = TimeSpan.seconds(33 + 11 + 11 + 3 * 6 + 1)

/// How long after its path is whole again a node may still judge by what it was. Where its vote and another's, whose path
/// stays broken, make a quorum, all probes are turns, the other's break every streak, and the node comes to three good
/// ones of its own only when chance has given it three turns: of seven nodes within 105 s on average.
private let misledBound = TimeSpan.seconds(300)

private func check(_ simulation: Simulation, _ quorum: Quorum) throws {
    let now = simulation.now
    for member in simulation.nodes {
        guard let machine = member.machine else { continue }
        func complain(_ what: String, _ key: BackendKey) -> Violation {
            let condition = machine.condition(of: key).map(String.init(describing:)) ?? "unknown"
            return Violation(description: "\(now): \(member.id) \(what) \(key): \(condition)")
        }
        for index in Cast.mortal {
            let backend = simulation.backends[index]
            guard backend.state == .dead, now - max(backend.since, member.runningSince) > deathBound else { continue }
            if member.available.contains(backend.key) { throw complain("still uses the dead", backend.key) }
        }
        for index in Cast.steady {
            let healthy = simulation.backends[index]
            let misled = simulation.misled(by: index, lately: misledBound)
            let live = machine.listing[index].votes.map(\.node)
            guard !misled.contains(member.id), live.count(where: misled.contains) < quorum.needed(live: live.count),
                !member.available.contains(healthy.key)
            else { continue }
            throw complain("lost, by the word of too few (\(misled.sorted()) of \(live)), the healthy", healthy.key)
        }
        let shaky = Cast.shaky.map { simulation.backends[$0].key }
        // Who has lost its way to everything has lost them too, until its probes have told it better.
        let isCutOff = member === simulation.nodes[0] && now - simulation.cutOffChanged < .seconds(100)
        if !isCutOff, simulation.cutOff !== member, !shaky.contains(where: { member.available.contains($0) }) {
            throw complain("lost, by failed requests alone, the last of", shaky[0])
        }
        for status in machine.listing where status.isAvailable != member.available.contains(status.backend) {
            throw complain("was told something else than it shows of", status.backend)
        }
    }
}

private func play(
    seed: UInt64, nodes: Int, faultsFor: TimeSpan, quorum: Quorum = .majority
) throws -> Simulation {
    let simulation = Simulation(seed: seed, nodes: nodes, services: Cast.services(quorum))
    simulation.setPath(of: simulation.nodes[0], to: Cast.pathBroken, broken: true)
    for member in simulation.nodes {
        simulation.after(simulation.span(0...2_000)) {
            simulation.start(member)
            simulation.traffic(member, every: 100...1_500)
        }
    }
    func trouble() {
        guard simulation.isFaulty else { return }
        let member = simulation.nodes.randomElement(using: &simulation.random) ?? simulation.nodes[0]
        switch Int.random(in: 0..<16, using: &simulation.random) {
        // Any node loses its way to one backend; one and the same loses it to all of them.
        case 12, 13:
            let index = Int.random(in: 0..<Cast.steady.upperBound, using: &simulation.random)
            simulation.setPath(of: member, to: index, broken: simulation.chance(50))
        case 14: simulation.cutOff(simulation.chance(40) ? simulation.nodes[0] : nil)
        // Somebody sets its wall clock.
        case 15: member.wallError = simulation.span(-7_200_000...7_200_000)
        case 0, 1: simulation.cut(member)
        case 2, 3, 4: simulation.connect(member)
        case 5: simulation.crash(member)
        case 6, 7: if member.machine == nil { simulation.start(member) }
        case 8: if simulation.chance(20) { simulation.emptyServer() }
        default:
            let index = Int.random(in: 0..<simulation.backends.count, using: &simulation.random)
            let state: [Simulation.BackendState] =
                Cast.mortal.contains(index)
                ? [.alive, .dead, .dead, .failingRequests]
                : Cast.shaky.contains(index) ? [.alive, .failingRequests] : [.alive]
            simulation.set(index, state.randomElement(using: &simulation.random) ?? .alive)
        }
        simulation.after(simulation.span(100...15_000), trouble)
    }
    simulation.after(.seconds(1), trouble)

    while simulation.now < faultsFor {
        simulation.run(until: simulation.now + .milliseconds(500))
        try check(simulation, quorum)
    }
    // The faults end: all nodes run and are connected, every backend is either dead or well.
    simulation.isFaulty = false
    simulation.cutOff(nil)
    for member in simulation.nodes {
        for index in simulation.backends.indices {
            simulation.setPath(
                of: member, to: index, broken: index == Cast.pathBroken && member === simulation.nodes[0])
        }
        if member.machine == nil { simulation.start(member) }
        simulation.connect(member)
    }
    for index in simulation.backends.indices where simulation.backends[index].state == .failingRequests {
        simulation.set(index, .alive)
    }
    while simulation.now < faultsFor + misledBound {
        simulation.run(until: simulation.now + .milliseconds(500))
        try check(simulation, quorum)
    }
    return simulation
}

@Suite struct HealthSimulationTests {
    @Test("dead backends go, healthy ones stay, and when the faults end all nodes agree with each other and the truth")
    func faults() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed), \(rounds) clusters")
        for round in 0..<rounds {
            let context = Comment(rawValue: "seed \(seed) round \(round)")
            let simulation: Simulation
            do {
                simulation = try play(
                    seed: seed &+ round, nodes: 1 + Int(round % 7), faultsFor: .seconds(240),
                    quorum: round % 3 == 2 ? .count(2) : .majority)
            } catch {
                Issue.record(error, context)
                return
            }
            let views = simulation.nodes.map { member in
                (member.machine?.listing ?? []).map { "\($0.backend.url) \($0.state) \($0.votes)" }
            }
            let differing = views.map { $0.joined(separator: "\n") }.joined(separator: "\n\n")
            #expect(Set(views).count == 1, "\(context)\n\(differing)")
            for member in simulation.nodes {
                for (index, backend) in simulation.backends.enumerated() {
                    let isBroken = index == Cast.pathBroken && member === simulation.nodes[0]
                    let expected = backend.state == .alive && !isBroken
                    #expect(member.available.contains(backend.key) == expected, context)
                }
            }
            // Seven backends, rarely more often than every five seconds each, and as often again by each node for its own sake.
            let seconds = Int(simulation.now.seconds)
            #expect(simulation.probes < (simulation.nodes.count + 2) * 7 * (seconds / 5), context)
        }
    }

    @Test("a backend is probed once an interval by one node, however many nodes there are", arguments: [1, 3, 12])
    func oneProber(nodes: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let simulation = Simulation(seed: seed, nodes: nodes, services: Cast.services())
        simulation.isFaulty = false
        for member in simulation.nodes { simulation.start(member) }
        simulation.run(until: .seconds(60))
        let start = simulation.probesOf
        simulation.run(until: .seconds(60 + 900))
        for backend in simulation.backends {
            let probes = (simulation.probesOf[backend.key] ?? 0) - (start[backend.key] ?? 0)
            // An interval of 30 s, a tenth more or less: 30 in 900 s.
            #expect((27...33).contains(probes), "seed \(seed)")
        }
    }

    @Test(
        "a dead backend is probed once a short interval by one node, however many nodes there are", arguments: [3, 8])
    func oneProberOfTheDead(nodes: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let simulation = Simulation(seed: seed, nodes: nodes, services: Cast.services())
        simulation.isFaulty = false
        simulation.silentDeaths = 0
        for member in simulation.nodes { simulation.start(member) }
        simulation.set(0, .dead)
        simulation.run(until: .seconds(120))
        let key = simulation.backends[0].key
        #expect(simulation.nodes.allSatisfy { !$0.available.contains(key) }, "seed \(seed)")
        let start = simulation.probesOf[key] ?? 0
        simulation.run(until: .seconds(120 + 500))
        #expect((92...110).contains((simulation.probesOf[key] ?? 0) - start), "seed \(seed)")
        // And all find it again, by three good probes of the cluster and one of their own.
        simulation.set(0, .alive)
        simulation.run(until: .seconds(120 + 500 + 20))
        #expect(simulation.nodes.allSatisfy { $0.available.contains(key) }, "seed \(seed)")
    }

    @Test("when Redis returns after a while in which everybody was alone, all views are the same within a second")
    func redisReturns() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed), \(rounds) clusters")
        for round in 0..<rounds {
            let context = Comment(rawValue: "seed \(seed) round \(round)")
            let simulation = Simulation(seed: seed &+ round, nodes: 2 + Int(round % 6), services: Cast.services())
            simulation.isFaulty = false
            for member in simulation.nodes {
                simulation.start(member)
                simulation.traffic(member, every: 50...500)
            }
            simulation.run(until: .seconds(20))
            for member in simulation.nodes { simulation.cut(member) }
            for index in Cast.mortal where simulation.chance(60) { simulation.set(index, .dead) }
            simulation.run(until: simulation.now + simulation.span(1_000...100_000))
            for index in Cast.mortal where simulation.chance(30) { simulation.set(index, .alive) }
            simulation.run(until: simulation.now + simulation.span(0...30_000))
            if simulation.chance(50) { simulation.emptyServer() }
            // They find it within the longest pause between two attempts.
            let back = simulation.now
            for member in simulation.nodes { simulation.after(simulation.span(0...500)) { simulation.connect(member) } }
            func views() -> Set<[String]> {
                Set(
                    simulation.nodes.map { member in
                        (member.machine?.listing ?? []).map { "\($0.backend) \($0.state) \($0.votes)" }
                    })
            }
            simulation.run(until: back + .milliseconds(500))
            while views().count > 1, simulation.now < back + .seconds(1) {
                simulation.run(until: simulation.now + .milliseconds(10))
            }
            #expect(views().count == 1, context)
        }
    }

    @Test("one seed replays the same run")
    func replay() throws {
        let seed = UInt64.random(in: 0 ... .max)
        let traces = try (0..<2).map { _ in try play(seed: seed, nodes: 3, faultsFor: .seconds(120)).trace }
        #expect(traces[0] == traces[1], "seed \(seed)")
        #expect(try play(seed: seed &+ 1, nodes: 3, faultsFor: .seconds(120)).trace != traces[0])
    }

    @Test("once one node's requests fail, all nodes have stopped using a dead backend within a tenth of a second")
    func fast() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let simulation = Simulation(seed: seed, nodes: 5, services: Cast.services())
        simulation.isFaulty = false
        simulation.silentDeaths = 0
        for member in simulation.nodes { simulation.start(member) }
        simulation.run(until: .seconds(20))
        simulation.set(0, .dead)
        let key = simulation.backends[0].key
        let witness = simulation.nodes[0]
        for _ in 0..<3 { simulation.give(witness) { $0.trafficFailed(key, refused, at: $1, into: &$2) } }
        #expect(!witness.available.contains(key))
        #expect(simulation.nodes.filter { $0.available.contains(key) }.count == 4)
        simulation.run(until: .milliseconds(20_100))
        #expect(simulation.nodes.allSatisfy { !$0.available.contains(key) })
        for member in simulation.nodes { #expect(member.machine?.listing[0].state == .down) }
    }
}
