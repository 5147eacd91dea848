import Glibc
import Primitives
import TestSupport
import Testing

@Suite("A new binary listens for its operators elsewhere")
struct UpgradeElsewhereTests {
    @Test(
        "the command hears that it serves, and which process it is, also where it has no admin listener",
        arguments: [(true, true), (true, false), (false, true), (false, false)])
    func elsewhere(isSupervised: Bool, moves: Bool) throws {
        try Scene.play { scene in
            let file = File([try scene.backend()])
            let node = try scene.node(file, [isSupervised ? "--supervise" : "--no-supervise"])
            if isSupervised { try eventually("it is supervised") { node.log.contains(" supervising ") } }
            let admin = try #require(node.admin)
            let pid = try node.number("pid")
            let moved = try scene.freePort().port
            let new = moves ? ", admin: \"127.0.0.1:\(moved)\"" : ""
            try node.write(file.yaml.replacing(", admin: \"127.0.0.1:0\"", with: new))
            let environment = ["XDG_RUNTIME_DIR": node.runtimeDirectory]
            let said = try runSluice(["upgrade", "--admin", "\(admin)"], environment: environment)
            #expect(said.exit == 0, "\(said.errors)")
            #expect(said.output.contains(": process \(pid), version "), "\(said.output)")
            #expect(said.output.hasSuffix(", whose admin listener is elsewhere, or off\n"), "\(said.output)")
            let told = try #require(said.output.firstRange(of: "→ process ")?.upperBound)
            let successor = try #require(pid_t(said.output[told...].prefix { $0.isNumber }))
            #expect(successor != pid_t(pid))
            #expect(try node.ask().status == 200)
            if moves {
                let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: moved))
                try wire.send("GET /api/node HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                #expect(try wire.readResponse().text.contains("\"pid\":\(successor),"))
            }
            if isSupervised { #expect(try node.terminate() == 0) } else { _ = kill(successor, SIGTERM) }
            try eventually("it ends") {
                kill(successor, 0) != 0 || readFile("/proc/\(successor)/stat").contains(") Z")
            }
        }
    }
}
