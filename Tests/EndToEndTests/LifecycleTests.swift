import Glibc
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

/// Clients that ask one after the other on connections of their own, until they are told to stop.
private final class Clients: Sendable {
    let answered = Atomic(0)
    private let going = Atomic(true)
    private let errors = Mutex<[String]>([])
    private let threads: Mutex<[OSThread]> = Mutex([])

    /// - Parameter keepingAlive: whether each uses its connection for as long as the node lets it.
    init(_ node: SluiceNode, _ count: Int, keepingAlive: Bool) {
        let address = node.address
        let started = (0..<count).map { _ in
            OSThread(name: "client") { [self] in
                var wire: Wire?
                while going.load(ordering: .relaxed) {
                    do {
                        let connection = try wire ?? Wire.connect(to: address)
                        let close = keepingAlive ? "" : "Connection: close\r\n"
                        try connection.send("GET / HTTP/1.1\r\nHost: test\r\n\(close)\r\n")
                        let answer = try connection.readResponse()
                        if answer.status != 200 { throw ProcessError(answer.startLine) }
                        wire = answer.value("Connection") == "close" ? nil : connection
                        answered.add(1, ordering: .relaxed)
                    } catch {
                        errors.withLock { $0.append("\(error)") }
                        wire = nil
                    }
                }
            }
        }
        threads.withLock { $0 = started }
    }

    func more(_ count: Int = 20) throws {
        let goal = answered.load(ordering: .relaxed) + count
        try eventually("requests are answered") { answered.load(ordering: .relaxed) >= goal }
    }

    /// What went wrong.
    func stop() -> [String] {
        going.store(false, ordering: .relaxed)
        for thread in threads.withLock({ $0 }) { thread.join() }
        return errors.withLock { $0 }
    }
}

@Suite("A new binary takes over")
struct UpgradeTests {
    private static func upgrade(_ node: SluiceNode) throws -> (exit: Int32, output: String, errors: String) {
        let admin = try #require(node.admin)
        return try runSluice(["upgrade", "--admin", "\(admin)", "--token", "a-secret-of-tests"])
    }

    static func end(_ node: SluiceNode, isSupervised: Bool) throws {
        if isSupervised {
            #expect(try node.terminate() == 0)
            return
        }
        let pid = Int32(try node.number("pid"))
        _ = kill(pid, SIGTERM)
        // Nobody's child any more: its end is seen by its absence, or as one that nobody has asked for.
        try eventually("the new process ends") {
            kill(pid, 0) != 0 || readFile("/proc/\(pid)/stat").contains(") Z")
        }
    }

    @Test("no connection is refused or reset, tunnels live on, and the name stays", arguments: [true, false])
    func takesOver(isSupervised: Bool) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.add(
                RecordingBackend(serving: { _, wire, _ in
                    while let request = try wire.readRequest() {
                        if request.value("Upgrade") == nil {
                            try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        } else {
                            try wire.send(TunnelScene.answer)
                            while true { try wire.send(try wire.read(1)) }
                        }
                    }
                }))
            var file = File([backend])
            file.workers = "2"
            file.gateway = "adminToken: a-secret-of-tests, heartbeat: 50ms"
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise", "--node-id", "one"])
            let database = try redis.client()
            try eventually("it has joined") { try database("ZSCORE", "sluice:nodes", "one") != "nil" }
            let tunnel = try TunnelScene.open(node)
            let kept = try node.connect()
            try kept.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try kept.readResponse().value("Connection") == nil)
            // From here on it is not idle, however long the upgrade takes.
            try kept.send("GET / HTTP/1.1\r\n")
            let pid = try node.number("pid")
            let clients = [Clients(node, 2, keepingAlive: true), Clients(node, 2, keepingAlive: false)]
            try clients[1].more()
            let said = try Self.upgrade(node)
            #expect(said.exit == 0, "\(said.errors)")
            #expect(said.output.contains("one: process \(pid), version"))
            for group in clients { try group.more() }
            try eventually("the new one is asked") { try node.number("pid") != pid }
            try kept.send("Host: test\r\n\r\n")
            // The connection of before: its next answer is its last.
            #expect(try kept.readResponse().value("Connection") == "close")
            try tunnel.send("still here")
            #expect(try tunnel.read(10) == Array("still here".utf8))
            for group in clients { #expect(group.stop() == []) }
            #expect(try database("ZSCORE", "sluice:nodes", "one") != "nil")
            #expect(try node.admin("/readyz").status == 200)
            #expect(!node.log.contains("uses this node's id"))
            tunnel.close()
            if !isSupervised { #expect(try node.process.waitForExit() == 0) }
            try eventually("the old one ends") { node.log.contains("reason=\"all connections are closed\"") }
            try Self.end(node, isSupervised: isSupervised)
            try eventually("it has left") { try database("ZCARD", "sluice:nodes") == "0" }
        }
    }

    @Test("again and again, each new binary from the one before", arguments: [true, false])
    func again(isSupervised: Bool) throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "adminToken: a-secret-of-tests"
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            let clients = Clients(node, 2, keepingAlive: false)
            for _ in 0..<3 {
                try clients.more(5)
                let pid = try node.number("pid")
                #expect(try Self.upgrade(node).exit == 0)
                // The old one answers until it has heard that it is replaced.
                try eventually("the new one is asked") { try node.number("pid") != pid }
            }
            #expect(clients.stop() == [])
            #expect(isSupervised == (node.process.exit == nil))
            try Self.end(node, isSupervised: isSupervised)
        }
    }

    @Test("a file with errors: the old process goes on and says what is wrong", arguments: [true, false])
    func failing(isSupervised: Bool) throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "adminToken: a-secret-of-tests"
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            let pid = try node.number("pid")
            try node.write("gateway: {prot: 1}\n")
            let said = try Self.upgrade(node)
            #expect(said.exit == 1)
            #expect(said.errors.contains("the old process goes on") && said.errors.contains("\(node.file):1:"))
            #expect(try node.number("pid") == pid)
            #expect(try node.admin("/api/node").text.contains("\"state\":\"failed\""))
            #expect(node.log.contains("the upgrade has failed"))
            #expect(try node.ask().status == 200)
            // A good file, and it works.
            try node.write(file.yaml)
            #expect(try Self.upgrade(node).exit == 0)
            #expect(try node.number("pid") != pid)
            try Self.end(node, isSupervised: isSupervised)
        }
    }

    @Test("the token that a node has made is its successor's, and outlives one that fails", arguments: [true, false])
    func madeToken(isSupervised: Bool) throws {
        try Scene.play { scene in
            let file = File([try scene.backend()])
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            let admin = try #require(node.admin)
            let path = "\(node.runtimeDirectory)/sluice-admin-\(admin.port).token"
            let environment = ["XDG_RUNTIME_DIR": node.runtimeDirectory]
            func upgrade() throws -> (exit: Int32, output: String, errors: String) {
                try runSluice(["upgrade", "--admin", "\(admin)"], environment: environment)
            }
            // It fails after it has opened everything: nobody may listen there.
            let taken = try SilentListener()
            try node.write(
                file.yaml.replacing("port: \"127.0.0.1:0\"", with: "port: \"127.0.0.1:\(taken.address.port)\""))
            #expect(try upgrade().exit == 1)
            try node.write(file.yaml)
            for turn in 0..<2 {
                let ended = node.log.ranges(of: "reason=\"all connections are closed\"").count
                let pid = try node.number("pid")
                let said = try upgrade()
                #expect(said.exit == 0, "\(turn): \(said.errors)")
                try eventually("the new one is asked") { try node.number("pid") != pid }
                try eventually("the old one ends") {
                    node.log.ranges(of: "reason=\"all connections are closed\"").count > ended
                }
                try eventually("it is gone") {
                    kill(pid_t(pid), 0) != 0 || readFile("/proc/\(pid)/stat").contains(") Z")
                }
                #expect(readFile(path).count == 32)
            }
            // Where the listener moves, the file goes along.
            let moved = try scene.freePort().port
            try node.write(file.yaml.replacing("admin: \"127.0.0.1:0\"", with: "admin: \"127.0.0.1:\(moved)\""))
            _ = kill(pid_t(try node.number("pid")), SIGHUP)
            try eventually("the new file is there") {
                readFile("\(node.runtimeDirectory)/sluice-admin-\(moved).token").count == 32
            }
            #expect(readFile(path).isEmpty)
            let drain = try runSluice(
                ["upgrade", "--admin", "127.0.0.1:\(moved)"], environment: environment)
            #expect(drain.exit == 0, "\(drain.errors)")
            let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: moved))
            try wire.send("GET /api/node HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            let text = try wire.readResponse().text
            let start = try #require(text.firstRange(of: "\"pid\":")?.upperBound)
            let last = try #require(Int32(text[start...].prefix { $0.isNumber }))
            if isSupervised { #expect(try node.terminate() == 0) } else { _ = kill(last, SIGTERM) }
            try eventually("the last one takes it along") {
                readFile("\(node.runtimeDirectory)/sluice-admin-\(moved).token").isEmpty
            }
        }
    }

    @Test(
        "where the successor listens elsewhere, or has a token of its own, the file that a node has left goes with it",
        arguments: [(true, true), (true, false), (false, true), (false, false)])
    func leftToken(isSupervised: Bool, moves: Bool) throws {
        try Scene.play { scene in
            let file = File([try scene.backend()])
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            let old = "\(node.runtimeDirectory)/sluice-admin-\(try #require(node.admin).port).token"
            #expect(readFile(old).count == 32)
            let moved = try scene.freePort().port
            let new = "\(node.runtimeDirectory)/sluice-admin-\(moved).token"
            let admin = "admin: \"127.0.0.1:0\""
            try node.write(
                moves
                    ? file.yaml.replacing(admin, with: "admin: \"127.0.0.1:\(moved)\"")
                    : file.yaml.replacing(admin, with: admin + ", adminToken: a-secret-of-tests"))
            if isSupervised { try eventually("it is supervised") { node.log.contains(" supervising ") } }
            node.process.signal(SIGUSR2)
            try eventually("the old one ends") { node.log.contains("reason=\"all connections are closed\"") }
            try eventually("the old file is gone") { readFile(old).isEmpty }
            #expect(readFile(new).count == (moves ? 32 : 0))
            if isSupervised {
                #expect(try node.terminate() == 0)
            } else {
                #expect(try node.process.waitForExit() == 0)
                let told = try #require(node.log.firstRange(of: "a new process serves process=")?.upperBound)
                _ = kill(try #require(pid_t(node.log[told...].prefix { $0.isNumber })), SIGTERM)
            }
            try eventually("the new file goes with its process") { readFile(new).isEmpty }
        }
    }

    @Test("without the token nobody upgrades")
    func token() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "adminToken: a-secret-of-tests"
            let node = try scene.node(file)
            let admin = try #require(node.admin)
            let said = try runSluice(["upgrade", "--admin", "\(admin)", "--token", "guess"])
            #expect(said.exit == 1 && said.errors.contains("401"))
            #expect(try node.admin("/api/upgrade").status == 405)
        }
    }
}

/// A new binary takes a second to start where Redis is silent: what happens in the meantime.
@Suite("While a new binary starts")
struct StartingTests {
    private static func file(_ backend: RecordingBackend, _ redis: SilentListener) -> File {
        var file = File([backend])
        file.rateLimit = "requestsPerSecond: 1000, redisURL: \"redis://\(redis.address)\""
        return file
    }

    /// Starts a node, and another binary, and waits until that has read the configuration.
    private static func play(
        isSupervised: Bool = true, _ body: (Scene, File, SluiceNode) throws -> Void
    ) throws {
        try Scene.play { scene in
            let redis = try SilentListener()
            let file = Self.file(try scene.backend(named: "one"), redis)
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            // What a node says in its log its parent has not heard yet.
            if isSupervised { try eventually("it is supervised") { node.log.contains(" supervising ") } }
            node.process.signal(SIGUSR2)
            try eventually("the new binary starts") { node.log.ranges(of: " starting ").count == 2 }
            try body(scene, file, node)
        }
    }

    private static func newOne(_ node: SluiceNode, after pid: Int) throws {
        try eventually("the new one is asked") { (try? node.number("pid")) ?? pid != pid }
    }

    @Test("a reload reaches it too")
    func reload() throws {
        try Self.play { scene, file, node in
            let pid = try node.number("pid")
            let two = try scene.backend(named: "two")
            try node.write(file.yaml.replacing(scene.backends[0].url, with: two.url))
            node.process.signal(SIGHUP)
            try Self.newOne(node, after: pid)
            try eventually("it has read the new file") { try node.ask().text == "two" }
            #expect(try node.terminate() == 0)
        }
    }

    @Test("who asks for another changes nothing, and is told so by the log")
    func again() throws {
        try Self.play { _, _, node in
            let pid = try node.number("pid")
            node.process.signal(SIGUSR2)
            try eventually("it is heard") { node.log.contains("is being started already") }
            let state = try node.admin("/api/node").text
            #expect(!state.contains("failed"), "\(state)")
            try Self.newOne(node, after: pid)
            #expect(try node.terminate() == 0)
        }
    }

    @Test("a crash of the old one does not stop it, and whoever was started in between leaves")
    func crash() throws {
        try Self.play { _, _, node in
            let pid = try node.number("pid")
            _ = kill(pid_t(pid), SIGKILL)
            try Self.newOne(node, after: pid)
            try eventually("it has taken over") { node.log.contains("a new worker process serves") }
            // Three were started, and one of them is left.
            try eventually("the one in between ends") {
                node.log.contains("the worker process that was replaced has ended")
            }
            #expect(try node.ask().status == 200)
            #expect(try node.terminate() == 0)
        }
    }

    @Test("whoever is told to end leaves none behind", arguments: [true, false])
    func end(isSupervised: Bool) throws {
        try Self.play(isSupervised: isSupervised) { _, _, node in
            #expect(try node.terminate() == 0)
            try eventually("nobody listens there") { (try? node.connect()) == nil }
        }
    }

    @Test("a node is ready when it takes connections, and says that limits hold when Redis has answered")
    func readiness() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let redis = try SilentListener()
            let path = try directory.write(Self.file(try scene.backend(), redis).yaml, to: "gateway.yaml")
            let process = try ChildProcess(try SluiceNode.binary(), ["run", "--no-supervise", "--config", path])
            defer { process.kill() }
            var listener: SocketAddress?
            try eventually("it says where it answers") {
                listener = SluiceNode.addresses(process.errors)?.admin
                return listener != nil
            }
            let admin = try #require(listener)
            var answers: [String] = []
            try eventually("it is ready") {
                let wire = try Wire.connect(to: admin)
                try wire.send("GET /readyz HTTP/1.1\r\nHost: \(admin)\r\nConnection: close\r\n\r\n")
                let answer = try wire.readResponse(to: "GET")
                answers.append("\(answer.status) \(answer.text)")
                return answer.status == 200
            }
            for answer in answers.dropLast() {
                #expect(answer.hasPrefix("503 ") && answer.contains("\"reason\":\"starting\""), "\(answer)")
            }
            #expect(answers.count > 1)
            for answer in answers { #expect(answer.contains("\"limits\":\"lost\""), "\(answer)") }
            try eventually("it says that it serves") { process.errors.contains(" serving ") }
        }
    }

    @Test("as long as the new one takes no connections, the old one answers for both", arguments: [true, false])
    func readinessOfBoth(isSupervised: Bool) throws {
        try Self.play(isSupervised: isSupervised) { _, _, node in
            let pid = try node.number("pid")
            try eventually("the new one is asked") {
                let ready = try node.admin("/readyz")
                // A connection that the old one took just before says that the other is there.
                let isLast = ready.text.contains("\"reason\":\"replaced\"")
                #expect(ready.status == 200 || isLast, "\(ready.text)")
                return try node.number("pid") != pid
            }
            try UpgradeTests.end(node, isSupervised: isSupervised)
        }
    }

    @Test("a reload in the very first moments of a node does not end it")
    func reloadAtOnce() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let redis = try SilentListener()
            let path = try directory.write(Self.file(try scene.backend(), redis).yaml, to: "gateway.yaml")
            let process = try ChildProcess(try SluiceNode.binary(), ["run", "--supervise", "--config", path])
            // Before, within and after the time in which a process could not take it.
            try eventually("it serves") {
                if isSupervising(process) { process.signal(SIGHUP) }
                return process.errors.contains(" serving ")
            }
            process.signal(SIGTERM)
            #expect(try process.waitForExit() == 0)
            #expect(!process.errors.contains("unasked"), "\(process.errors)")
        }
    }

    /// Whether it takes the signal itself: it has a child.
    private func isSupervising(_ process: ChildProcess) -> Bool {
        !readFile("/proc/\(process.pid)/task/\(process.pid)/children").isEmpty
    }
}

@Suite("A supervised node")
struct SupervisionTests {
    @Test("a worker that crashes is replaced, and nobody is refused meanwhile", arguments: [SIGSEGV, SIGILL])
    func crash(signal: Int32) throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]), ["--supervise"])
            let pid = try node.number("pid")
            #expect(pid != Int(node.process.pid))
            #expect(try node.number("crashes") == 0)
            #expect(readFile("/proc/\(pid)/comm") == "sluice\n")
            let clients = Clients(node, 3, keepingAlive: false)
            try clients.more()
            _ = kill(pid_t(pid), signal)
            try eventually("another serves") { (try? node.number("pid")) ?? pid != pid }
            try clients.more()
            // What the process had in its hands is lost with it; what waited in the sockets is not.
            #expect(clients.stop().allSatisfy { !$0.contains("connect fails") })
            #expect(try node.number("crashes") == 1)
            let name = signal == SIGSEGV ? "SIGSEGV" : "SIGILL"
            #expect(try node.admin("/api/node").text.contains("\"lastCrash\":\"\(name) at 2"))
            // Somebody has sent it: there is no address that it would be about.
            #expect(node.log.contains("sluice: crashed by \(name); backtrace"))
            let trace = node.log.split(separator: "\n").filter { $0.contains("sluice(") && $0.contains("[0x") }
            #expect(trace.count >= 2, "\(node.log)")
            #expect(node.log.contains("is started again"))
            #expect(try node.terminate() == 0)
        }
    }

    @Test("a worker that crashes in a loop is given up, loudly")
    func loop() throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]), ["--supervise"])
            // What a node says in its log its parent has not heard yet.
            try eventually("it is supervised") { node.log.contains(" supervising ") }
            var pid = 0
            for _ in 0..<5 {
                try eventually("it serves") {
                    let now = (try? node.number("pid")) ?? pid
                    defer { pid = now }
                    return now != pid
                }
                _ = kill(pid_t(pid), SIGKILL)
            }
            #expect(try node.process.waitForExit() == 70)
            #expect(node.log.contains("critical the worker process crashes in a loop"))
            #expect(node.log.split(separator: "\n").count { $0.contains("is started again") } == 4)
        }
    }

    @Test("a node that cannot start ends its parent with its own code, and says why once")
    func startFailure() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            let node = try scene.node(file)
            file.listen = "\(node.address)"
            let directory = try TemporaryDirectory()
            let path = try directory.write(file.yaml, to: "gateway.yaml")
            let second = try runSluice(["run", "--supervise", "--config", path])
            #expect(second.exit == 1)
            #expect(second.errors.ranges(of: "cannot listen").count == 1)
        }
    }

    @Test("when the parent is killed its node ends in order")
    func orphan() throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]), ["--supervise"])
            let pid = pid_t(try node.number("pid"))
            node.kill()
            try eventually("it ends") { kill(pid, 0) != 0 || readFile("/proc/\(pid)/stat").contains(") Z") }
            #expect(node.log.contains("the supervisor is gone"))
        }
    }

    @Test("a service manager is told of the beginning and the end", arguments: [true, false])
    func notifies(isSupervised: Bool) throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let manager = try Notified("\(directory.path)/notify")
            let node = try scene.node(
                File([try scene.backend()]), isSupervised ? [] : ["--no-supervise"],
                environment: ["NOTIFY_SOCKET": "\(directory.path)/notify"])
            // Its presence alone makes a supervisor.
            #expect(try (node.number("pid") != Int(node.process.pid)) == isSupervised)
            try eventually("it is ready") { manager.next()?.contains("READY=1\n") ?? false }
            node.process.signal(SIGTERM)
            try eventually("it ends") { manager.next() == "STOPPING=1" }
            #expect(try node.process.waitForExit() == 0)
        }
    }

    @Test("a service manager follows an unsupervised node through reloads and upgrades")
    func notifiesOfSuccessors() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let manager = try Notified("\(directory.path)/notify")
            var file = File([try scene.backend()])
            file.gateway = "adminToken: a-secret-of-tests"
            let node = try scene.node(
                file, ["--no-supervise"], environment: ["NOTIFY_SOCKET": "\(directory.path)/notify"])
            var said = ""
            func hears(_ words: String) throws {
                try eventually("it says \(words)") {
                    while let next = manager.next() { said += next + "\n" }
                    return said.contains(words)
                }
                said = ""
            }
            try hears("READY=1\n")
            for turn in 0..<2 {
                let pid = try node.number("pid")
                _ = kill(pid_t(pid), SIGHUP)
                try hears("RELOADING=1\nMONOTONIC_USEC=")
                try eventually("it has read the file") {
                    try node.admin("/api/config").text.contains("\"answered\":1")
                }
                let admin = try #require(node.admin)
                let upgrade = try runSluice(["upgrade", "--admin", "\(admin)", "--token", "a-secret-of-tests"])
                #expect(upgrade.exit == 0, "\(turn): \(upgrade.errors)")
                try eventually("the new one is asked") { try node.number("pid") != pid }
                try hears("MAINPID=\(try node.number("pid"))")
            }
            let pid = pid_t(try node.number("pid"))
            _ = kill(pid, SIGTERM)
            try hears("STOPPING=1")
            try eventually("it ends") { kill(pid, 0) != 0 || readFile("/proc/\(pid)/stat").contains(") Z") }
        }
    }

    /// A socket as a service manager has it.
    private final class Notified {
        private let raw: Int32

        init(_ path: String) throws {
            raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: Array(path.utf8)) }
            let result = unsafe withUnsafePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            guard result == 0 else { throw ProcessError("bind: errno \(errno)") }
        }

        deinit { close(raw) }

        /// What has been said next; `nil` where nothing has.
        func next() -> String? {
            var bytes = [UInt8](repeating: 0, count: 1_024)
            let n = unsafe recv(raw, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            return n > 0 ? String(decoding: bytes[..<n], as: UTF8.self) : nil
        }
    }
}
