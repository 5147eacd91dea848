import Foundation
import Health
import Membership
import Primitives
import Testing

/// How many clusters are played. As many as a test run has time for; the environment asks for thousands.
private let rounds = ProcessInfo.processInfo.environment["SLUICE_SIMULATIONS"].flatMap { UInt64($0) } ?? 24

/// Three services: one whose backends die and fail, one that is always well but for one node's broken path, one whose
/// backends fail requests and never a probe.
private enum Cast {
    static let services = [
        WatchedService(name: "mortal", settings: settings, urls: ["http://m:1", "http://m:2", "http://m:3"]),
        WatchedService(name: "steady", settings: settings, urls: ["http://s:1", "http://s:2"]),
        WatchedService(name: "shaky", settings: settings, urls: ["http://k:1", "http://k:2"]),
    ]
    /// Within the time that a run waits for everything to be well again.
    static let settings = {
        var settings = HealthSettings()
        settings.cooldownMax = .seconds(60)
        return settings
    }()
    static let mortal = 0..<3
    static let pathBroken = 3
    static let shaky = 5..<7
}

private struct Violation: Error, CustomStringConvertible { var description: String }

/// How long a backend may be dead before every node that can know has stopped using it. The slowest way is by probes
/// alone: an interval and two short ones, each up to a tenth longer, and three timeouts with the giving up.
private let deathBound = TimeSpan.seconds(33 + 11 + 11 + 3 * 6 + 1)

private func check(_ simulation: Simulation) throws {
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
        let lame = simulation.backends[Cast.pathBroken]
        if member !== simulation.nodes[0], !member.available.contains(lame.key) {
            throw complain("lost, by one node's word, the healthy", lame.key)
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

private func play(seed: UInt64, nodes: Int, faultsFor: TimeSpan) throws -> Simulation {
    let simulation = Simulation(seed: seed, nodes: nodes, services: Cast.services)
    simulation.backends[Cast.pathBroken].unreachableFrom = 0
    for member in simulation.nodes {
        simulation.after(simulation.span(0...2_000)) {
            simulation.start(member)
            simulation.traffic(member, every: 100...1_500)
        }
    }
    func trouble() {
        guard simulation.isFaulty else { return }
        let member = simulation.nodes.randomElement(using: &simulation.random) ?? simulation.nodes[0]
        switch Int.random(in: 0..<14, using: &simulation.random) {
        // One and the same node loses its way to one backend, or to all of them.
        case 12: simulation.backends[Cast.pathBroken].unreachableFrom = simulation.chance(50) ? 0 : nil
        case 13: simulation.cutOff(simulation.chance(40) ? simulation.nodes[0] : nil)
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
        try check(simulation)
    }
    // The faults end: all nodes run and are connected, every backend is either dead or well.
    simulation.isFaulty = false
    simulation.cutOff(nil)
    simulation.backends[Cast.pathBroken].unreachableFrom = 0
    for member in simulation.nodes {
        if member.machine == nil { simulation.start(member) }
        simulation.connect(member)
    }
    for index in simulation.backends.indices where simulation.backends[index].state == .failingRequests {
        simulation.set(index, .alive)
    }
    while simulation.now < faultsFor + .seconds(150) {
        simulation.run(until: simulation.now + .milliseconds(500))
        try check(simulation)
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
                simulation = try play(seed: seed &+ round, nodes: 1 + Int(round % 7), faultsFor: .seconds(240))
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
        let simulation = Simulation(seed: seed, nodes: nodes, services: Cast.services)
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
        let simulation = Simulation(seed: seed, nodes: nodes, services: Cast.services)
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
        let simulation = Simulation(seed: seed, nodes: 5, services: Cast.services)
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
