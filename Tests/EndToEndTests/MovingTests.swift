import Glibc
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

/// Clients that ask on a new connection each time: what they were answered, and how long the slowest waited.
final class Newcomers: Sendable {
    private struct State {
        var going = true
        var answers: [String: Int] = [:]
        var slowest = TimeSpan.zero
    }
    private let state = Mutex(State())
    private let threads = Mutex<[OSThread]>([])

    init(_ address: SocketAddress, _ count: Int = 3) {
        let started = (0..<count).map { _ in
            OSThread(name: "client") { [self] in
                while state.withLock(\.going) {
                    let begun = SystemClock.monotonic()
                    let answer = Self.ask(address)
                    state.withLock {
                        $0.answers[answer, default: 0] += 1
                        $0.slowest = max($0.slowest, SystemClock.monotonic() - begun)
                    }
                }
            }
        }
        threads.withLock { $0 = started }
    }

    private static func ask(_ address: SocketAddress) -> String {
        do {
            let wire = try Wire.connect(to: address)
            try wire.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            return try wire.readResponse().text
        } catch {
            return "\(error)"
        }
    }

    func count(of answer: String) -> Int { state.withLock { $0.answers[answer] ?? 0 } }

    func more(_ answer: String, _ count: Int = 20) throws {
        let goal = self.count(of: answer) + count
        try eventually("\(answer) is answered") { self.count(of: answer) >= goal }
    }

    func stop() -> (answers: [String: Int], slowest: TimeSpan) {
        state.withLock { $0.going = false }
        for thread in threads.withLock({ $0 }) { thread.join() }
        return state.withLock { ($0.answers, $0.slowest) }
    }
}

@Suite("A node that moves to another address")
struct MovingTests {
    private static let token = "a-movers-secret"

    private func file(_ scene: Scene, _ listen: String) throws -> File {
        var file = File([try scene.backend(named: "one")])
        file.gateway = "adminToken: \(Self.token)"
        file.workers = "2"
        file.listen = listen
        return file
    }

    private func command(_ name: String, _ node: SluiceNode, _ more: [String] = []) throws -> (
        exit: Int32, output: String, errors: String
    ) {
        let admin = try #require(node.admin)
        return try runSluice([name, "--admin", "\(admin)", "--token", Self.token] + more)
    }

    /// Long before a client's system repeats the first packet of a connection, which it does after a second.
    private static let repetition = TimeSpan.milliseconds(900)

    @Test("to a wider address and back, and no client waits for it")
    func widens() throws {
        try Scene.play { scene in
            let port = try scene.freePort().port
            let narrow = try file(scene, "127.0.0.1:\(port)")
            var wide = narrow
            let node = try scene.node(narrow)
            let moves = ["0.0.0.0:\(port)", "127.0.0.1:\(port)", ":\(port)", "0.0.0.0:\(port)", "127.0.0.1:\(port)"]
            var slowest = moves.map { _ in TimeSpan.seconds(60) }
            // A busy machine may be slow once, not every time.
            for _ in 0..<4 where slowest.contains(where: { $0 >= Self.repetition }) {
                for (index, address) in moves.enumerated() {
                    wide.listen = address
                    try node.write(wide.yaml)
                    let clients = Newcomers(node.address)
                    try clients.more("one")
                    let reload = try command("reload", node)
                    #expect(reload.exit == 0, "\(reload.errors)")
                    try clients.more("one")
                    let (answers, longest) = clients.stop()
                    #expect(Array(answers.keys) == ["one"], "\(address)")
                    slowest[index] = min(slowest[index], longest)
                }
            }
            for (address, longest) in zip(moves, slowest) { #expect(longest < Self.repetition, "\(address)") }
            // What only the wider address took in is not served any more.
            try eventually("the wide one is closed") {
                (try? Wire.connect(to: SocketAddress(ip: try #require(IPAddress("127.0.0.2")), port: port))) == nil
            }
        }
    }

    @Test("an upgrade to a wider address and back, and no client notices", arguments: [true, false])
    func upgradeWidens(isSupervised: Bool) throws {
        try Scene.play { scene in
            let port = try scene.freePort().port
            var file = try file(scene, "127.0.0.1:\(port)")
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            let clients = Newcomers(node.address)
            for address in ["0.0.0.0:\(port)", "127.0.0.1:\(port)"] {
                try clients.more("one")
                file.listen = address
                try node.write(file.yaml)
                let pid = try node.number("pid")
                let upgrade = try command("upgrade", node)
                #expect(upgrade.exit == 0, "\(upgrade.errors)")
                try eventually("the new one is asked") { try node.number("pid") != pid }
                try clients.more("one")
            }
            #expect(Array(clients.stop().answers.keys) == ["one"])
            if !isSupervised { _ = kill(pid_t(try node.number("pid")), SIGTERM) }
        }
    }

    @Test("an upgrade to another port refuses newcomers at the old one and resets nobody", arguments: [true, false])
    func upgradeMoves(isSupervised: Bool) throws {
        try Scene.play { scene in
            var file = try file(scene, "127.0.0.1:\(try scene.freePort().port)")
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            for _ in 0..<3 {
                let old = file.listen
                let clients = Newcomers(
                    SocketAddress(ip: .v4Loopback, port: try #require(UInt16(old.split(separator: ":")[1]))), 6)
                try clients.more("one")
                file.listen = "127.0.0.1:\(try scene.freePort().port)"
                try node.write(file.yaml)
                let pid = try node.number("pid")
                #expect(try command("upgrade", node).exit == 0)
                try eventually("the new one is asked") { try node.number("pid") != pid }
                try clients.more("connect fails with error \(ECONNREFUSED)", 1)
                let others = clients.stop().answers.keys.filter { $0 != "one" && !$0.hasPrefix("connect fails") }
                #expect(others == [])
            }
            if !isSupervised { _ = kill(pid_t(try node.number("pid")), SIGTERM) }
        }
    }

    @Test("a reload that moves the admin listener, switches it off or changes its token is answered where it was asked")
    func movesAdmin() throws {
        try Scene.play { scene in
            var file = try file(scene, "127.0.0.1:0")
            let node = try scene.node(file)
            let first = try #require(node.admin)
            file.admin = "127.0.0.1:\(try scene.freePort().port)"
            try node.write(file.yaml)
            let moved = try command("reload", node)
            #expect(moved.exit == 0, "\(moved.errors)")
            #expect(moved.output.hasPrefix("version 2 is in force"))
            func reload(_ more: [String] = []) throws -> (exit: Int32, output: String, errors: String) {
                try runSluice(["reload", "--admin", file.admin, "--token", Self.token] + more)
            }
            file.gateway = "adminToken: another-secret"
            try node.write(file.yaml)
            // The file has the token that is to be.
            let early = try runSluice(["reload", "--config", node.file])
            #expect(early.exit == 1)
            #expect(early.errors.contains("401") && early.errors.contains("give the one in force: --token"))
            #expect(try reload().output.hasPrefix("version 3 is in force"))
            #expect(try reload().errors.contains("401"))
            #expect(try runSluice(["reload", "--config", node.file]).output.hasPrefix("version 4 is in force"))
            let here = file.admin
            file.admin = "\(first)"
            try node.write(file.yaml)
            let lost = try runSluice(["reload", "--config", node.file])
            #expect(lost.exit == 1)
            #expect(lost.errors.contains("Connection refused") && lost.errors.contains("--admin HOST:PORT"))
            let back = try runSluice(["reload", "--admin", here, "--config", node.file])
            #expect(back.output.hasPrefix("version 5 is in force"), "\(back.errors)")
            let off = file.yaml.replacing("admin: \"\(file.admin)\", ", with: "").replacing(
                ", adminToken: another-secret", with: "")
            try node.write(off)
            let last = try runSluice(["reload", "--admin", "\(first)", "--token", "another-secret"])
            #expect(last.output.hasPrefix("version 6 is in force"), "\(last.errors)")
            try eventually("nobody listens there") { (try? Wire.connect(to: first)) == nil }
            #expect(try node.ask().text == "one")
        }
    }
}
