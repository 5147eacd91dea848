import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("A node that is told to end leaves no process behind")
struct EndingTests {
    private static func isGone(_ pid: pid_t) -> Bool {
        kill(pid, 0) != 0 || readFile("/proc/\(pid)/stat").contains(") Z")
    }

    @Test(
        "a new process that does not serve yet ends with it",
        arguments: ["sleep 2; exec PROGRAM \"$@\"", "exec sleep 77"],
        [true, false])
    func duringUpgrade(script: String, isSupervised: Bool) throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let program = "\(directory.path)/sluice"
            let binary = try SluiceNode.binary()
            try #require(unsafe symlink(binary, program) == 0)
            let node = try scene.node(
                File([try scene.backend()]), [isSupervised ? "--supervise" : "--no-supervise"], program: program)
            let text = "#!/bin/sh\necho $$ > \(directory.path)/new\n\(script.replacing("PROGRAM", with: binary))\n"
            let next = try directory.write(text, to: "next")
            try #require(unsafe chmod(next, 0o755) == 0 && rename(next, program) == 0)
            try eventually("its parent knows that it serves") { !isSupervised || node.log.contains("supervising") }
            node.process.signal(SIGUSR2)
            try eventually("the new process has begun") { readFile("\(directory.path)/new").hasSuffix("\n") }
            let new = try #require(pid_t(readFile("\(directory.path)/new").dropLast()))
            #expect(try node.terminate() == 0)
            try eventually("the new process is gone") { Self.isGone(new) }
            #expect((try? node.connect()) == nil)
        }
    }

    @Test("one that drains starts no other", arguments: [true, false])
    func afterwards(isSupervised: Bool) throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "drain: {delay: 1h}, adminToken: a-secret-of-tests"
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            node.token = "a-secret-of-tests"
            node.process.signal(SIGTERM)
            try eventually("it drains") { try node.admin("/readyz").status == 503 }
            node.process.signal(SIGUSR2)
            try eventually("it says so") {
                node.log.contains(" is started reason=\"this node ends\"")
            }
            #expect(try node.admin("/api/upgrade", method: "POST").status == 409)
            node.process.signal(SIGTERM)
            #expect(try node.process.waitForExit() == 0)
            #expect((try? node.connect()) == nil)
        }
    }

    @Test("a parent whose worker hangs kills it, after the drain or at the second word", arguments: [1, 2])
    func hangs(words: Int) throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = words == 1 ? "drain: {timeout: 100ms}" : "drain: {timeout: 1h}"
            let node = try scene.node(file, ["--supervise"])
            let pid = pid_t(try node.number("pid"))
            _ = kill(pid, SIGSTOP)
            for _ in 0..<words {
                node.process.signal(SIGTERM)
                // Two of a kind that arrive together are one.
                try eventually("it is heard") {
                    readFile("/proc/\(node.process.pid)/status").contains("ShdPnd:\t0000000000000000")
                }
            }
            #expect(try node.process.waitForExit() == 1)
            #expect(node.log.contains("a worker process hangs instead of ending, and is killed"))
            #expect(Self.isGone(pid))
            #expect((try? node.connect()) == nil)
        }
    }
}
