// `sluice upgrade`: a new binary takes the place of the running one.

import Admin
import ArgumentParser
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
    var wait = 65

    func run() throws {
        let client = try admin.client()
        do {
            let before = try decoded(NodeProcess.self, try client.ask("GET", "/api/node"))
            _ = try client.ask("POST", "/api/upgrade")
            let end = SystemClock.monotonic() + .seconds(Int64(max(1, wait)))
            while SystemClock.monotonic() < end {
                // In the moment of the change a connection may meet a process that has just left.
                if let body = try? client.ask("GET", "/api/node") {
                    let now = try decoded(NodeProcess.self, body)
                    if now.boot != before.boot {
                        print(Self.told(before, now, asJSON: admin.json))
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
        } catch let code as ExitCode {
            throw code
        } catch {
            printError("sluice: \(error)")
            throw ExitCode(1)
        }
    }

    private struct UpgradeError: Error, CustomStringConvertible { let description: String }

    private static func shown(_ process: NodeProcess) -> String { "process \(process.pid), version \(process.version)" }

    private static func told(_ before: NodeProcess, _ now: NodeProcess, asJSON: Bool) -> String {
        guard asJSON else { return "\(now.node): \(shown(before)) → \(shown(now))" }
        return
            "{\"node\":\"\(now.node)\",\"pid\":[\(before.pid),\(now.pid)],\"version\":[\"\(before.version)\",\"\(now.version)\"]}"
    }
}
