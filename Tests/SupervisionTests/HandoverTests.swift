import Glibc
import LinuxIO
import Primitives
import Testing

@testable import Supervision

@Suite("What one process passes on to the next")
struct HandoverTests {
    @Test("a list of sockets reads what it has written")
    func list() {
        let list = SocketList([.init(raw: 7, role: .gateway), .init(raw: 9, role: .admin)])
        #expect(list.text == "7:gateway,9:admin")
        #expect(SocketList(list.text) == list)
    }

    @Test(
        "what is no entry is left out, the first three descriptors among it",
        arguments: ["", "7", "7:", ":gateway", "x:gateway", "2:gateway", "-1:admin", "7:other", "7:gateway:8", ",,"])
    func malformed(text: String) {
        #expect(SocketList(text).entries.isEmpty)
        #expect(SocketList("\(text),8:admin").entries == [.init(raw: 8, role: .admin)])
    }

    static let words: [Word] = [
        .ready([.gateway, .gateway, .admin]), .ready([]), .failed("cannot listen: in use"), .wantsUpgrade, .reloaded,
        .upgrading, .handOver(nil), .handOver(4711), .upgradeFailed("exit code 1"), .configuration,
        .manner(Manner(isJSON: true, level: "warning", endTime: .seconds(31))),
        .manner(Manner(isJSON: false, level: "info", endTime: .zero)),
    ]

    @Test("a word is read as it was written", arguments: words)
    func word(word: Word) { #expect(Word(word.text) == word) }

    @Test(
        "other words are none",
        arguments: [
            "", " ", "Ready", "bye now", "manner", "manner json", "manner json info -1",
            "manner json info 9999999999999",
        ])
    func noWord(text: String) { #expect(Word(text) == nil) }

    @Test("the text of a configuration is there for each process that comes, whole")
    func keptText() throws {
        let text = String(repeating: "services: [ä]\n", count: 5_000)
        for isOnly in [false, true] {
            // Each gets a descriptor of its own, of one and the same file.
            let kept = KeptText(adopting: try MemoryFile.make(text).release())
            for _ in 0..<2 {
                let value = KeptConfiguration.variable(fcntl(kept.descriptor.raw, F_DUPFD, 3), isOnly: isOnly)
                let found = KeptConfiguration(environment: [HandoverKeys.configuration: value])
                #expect(found?.text == text)
                #expect(found?.isOnly == isOnly)
            }
        }
        for value in ["", "x", "2", "-1", "99999"] {
            #expect(KeptConfiguration(environment: [HandoverKeys.configuration: value]) == nil)
        }
    }

    @Test("what is meant for one process reaches none that it starts")
    func environment() {
        let own = ["PATH": "/bin", "SLUICE_PARENT": "5:supervisor", "SLUICE_CRASHES": "3", "SLUICE_ADMIN_TOKEN": "t"]
        let next = HandoverKeys.environment(own, adding: ["SLUICE_SOCKETS": "7:admin"])
        #expect(next == ["PATH": "/bin", "SLUICE_ADMIN_TOKEN": "t", "SLUICE_SOCKETS": "7:admin"])
    }

    @Test("every inherited socket gets a worker, also where there are fewer workers", arguments: 1...5)
    func spreading(workers: Int) {
        let shares = spread(Array(0..<3), over: workers)
        #expect(shares.count == workers)
        #expect(shares.joined().sorted() == [0, 1, 2])
        #expect(workers < 3 || shares.allSatisfy { $0.count <= 1 })
    }

    @Test("sockets go to whom they are for, where they listen, and once")
    func taking() throws {
        func open(_ address: String) throws -> ListeningSocket {
            try ListeningSocket(
                SocketAddress(ip: try #require(IPAddress(address)), port: 0), reusePort: true, probeFirst: false)
        }
        let (one, two, admin) = (try open("127.0.0.1"), try open("127.0.0.2"), try open("127.0.0.1"))
        let list = [(one, SocketRole.gateway), (two, .gateway), (admin, .admin)].map { socket, role in
            SocketList.Entry(raw: duplicate(socket), role: role)
        }
        let inherited = InheritedSockets(SocketList(list))
        func isAt(_ other: ListeningSocket) -> (SocketAddress) -> Bool { { $0 == other.address } }
        #expect(inherited.contains(where: isAt(one)))
        #expect(inherited.take(.gateway) { $0.port == 1 }.isEmpty)
        #expect(inherited.take(.gateway, where: isAt(one)).map(\.address) == [one.address])
        #expect(inherited.take(.gateway, where: isAt(one)).isEmpty)
        #expect(!inherited.contains(where: isAt(one)))
        #expect(inherited.take(.admin, where: isAt(admin)).map(\.address) == [admin.address])
        #expect(inherited.takeRest().map(\.socket.address) == [two.address])
        #expect(inherited.takeRest().isEmpty)
    }

    @Test("a descriptor that is no listening socket is none")
    func noSocket() throws {
        let (a, b) = try Channel.pair()
        let raw = duplicate(a)
        #expect(
            InheritedSockets(SocketList([.init(raw: raw, role: .gateway)])).takeRest().isEmpty)
        #expect(b.send("alive"))
        #expect(a.receive()?.text == "alive")
    }

    /// A number of its own for the same socket, as another process would have it.
    private func duplicate(_ socket: ListeningSocket) -> Int32 { passed(socket.descriptor.raw) }
    private func duplicate(_ channel: Channel) -> Int32 { passed(channel.descriptor.raw) }

    private func passed(_ raw: Int32) -> Int32 {
        guard let (here, there) = try? Channel.pair(), here.send("take this", [raw]),
            let (text, descriptors) = there.receive(), text == "take this", descriptors.count == 1
        else { return -1 }
        return descriptors[0]
    }
}

@Suite("When a process is started again")
struct RestartPolicyTests {
    private func at(_ milliseconds: Int64) -> MonotonicTime {
        MonotonicTime(nanoseconds: 1_000_000_000) + .milliseconds(milliseconds)
    }

    @Test("at once, then with growing pauses, and not for ever")
    func loop() {
        var policy = RestartPolicy()
        let decisions = (0..<5).map { policy.ended(at: at($0 * 1_000)) }
        #expect(
            decisions == [
                .restart(after: .zero), .restart(after: .milliseconds(100)), .restart(after: .milliseconds(200)),
                .restart(after: .milliseconds(400)), .giveUp,
            ])
    }

    @Test("ends that lie far apart are each the first")
    func apart() {
        var policy = RestartPolicy()
        for n in 0..<20 { #expect(policy.ended(at: at(Int64(n) * 30_000)) == .restart(after: .zero)) }
    }

    @Test("four within the span and one behind it are no loop")
    func edge() {
        var policy = RestartPolicy()
        for n in 0..<4 { #expect(policy.ended(at: at(Int64(n))) != .giveUp) }
        #expect(policy.ended(at: at(30_003)) == .restart(after: .zero))
    }

    static let processes: [(Int32, [String: String], Bool)] = [
        (1, [:], true), (77, [:], false), (77, ["NOTIFY_SOCKET": "/n"], true),
        // A shell of a session that a unit has begun, and whatever is started from it.
        (77, ["INVOCATION_ID": "x"], false),
        (77, ["INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "77"], true),
        // A shell's child, whose shell a unit has started.
        (77, ["INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "50"], false),
    ]

    @Test("the first process of a container and the main one of a unit are supervised", arguments: processes)
    func byDefault(id: Int32, environment: [String: String], expected: Bool) {
        #expect(isSupervisedByDefault(id: id, environment: environment) == expected)
    }
}
