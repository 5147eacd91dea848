// `sluice upgrade`: a new binary takes the place of the running one.

import ArgumentParser
import FoundationEssentials
import LinuxIO
import Primitives

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let the binary and the configuration that lie there now take over from a running node.",
        discussion: """
            The node starts a new process from the path that it was started from itself, with the same arguments. The new \
            one listens on the same sockets, and once it serves, the old one finishes what it has begun. Where the new \
            one does not start, the old one goes on, and this command says why and exits 1. SIGUSR2 does the same.
            """)

    @OptionGroup var admin: AdminOptions

    @Option(help: ArgumentHelp("How long to wait for the new process.", valueName: "seconds"))
    var wait = 60

    private struct Process: Decodable {
        var node: String
        var boot: String
        var pid: Int32
        var version: String
        var upgrade: Upgrade

        struct Upgrade: Decodable {
            var state: String
            var reason: String?
        }

        var shown: String { "process \(pid), version \(version)" }
    }

    func run() throws {
        let client = try admin.client()
        func look() throws -> Process {
            try JSONDecoder().decode(Process.self, from: Data(client.ask("GET", "/api/node")))
        }
        do {
            let before = try look()
            _ = try client.ask("POST", "/api/upgrade")
            let end = SystemClock.monotonic() + .seconds(Int64(max(1, wait)))
            while SystemClock.monotonic() < end {
                // In the moment of the change a connection may meet a process that has just left.
                if let now = try? look() {
                    if now.boot != before.boot {
                        print(admin.json ? Self.json(before, now) : "\(now.node): \(before.shown) → \(now.shown)")
                        return
                    }
                    if now.upgrade.state == "failed" {
                        throw UpgradeError(
                            description: "the old process goes on: \(now.upgrade.reason ?? "see its log")")
                    }
                }
                _ = awaitReadable([], atMost: 50)
            }
            throw UpgradeError(description: "no new process within \(wait) s: see the node's log")
        } catch {
            printError("sluice: \(error)")
            throw ExitCode(1)
        }
    }

    private struct UpgradeError: Error, CustomStringConvertible { let description: String }

    private static func json(_ before: Process, _ now: Process) -> String {
        "{\"node\":\"\(now.node)\",\"pid\":[\(before.pid),\(now.pid)],\"version\":[\"\(before.version)\",\"\(now.version)\"]}"
    }
}
