// One probe of a backend, made as a node makes its own: for asking beforehand whether it would be up.

package import Configuration
import EventLoop
import Health
import LinuxIO
import Primitives

package enum BackendCheck {
    /// Why a probe of it fails; `nil` where it succeeds. Where nodes do not probe, a connection is enough.
    package static func problem(of instance: Configuration.Backend, in service: Configuration.Service) -> String? {
        do {
            var settings = HealthSettings(service.health)
            if !settings.active { settings.probe = .tcp }
            let backend = Backend(instance, index: 0, service: service, traffic: TrafficRegistry(workers: 1))
            _ = backend.replaceAddresses(try HostNames.resolve(backend.host))
            let loop = try Loop(waker: try Waker())
            var result: ProbeResult?
            Probe(backend, settings, loop: loop) { result = $0 }.start()
            while result == nil { loop.turn() }
            guard case .failed(let failure) = result else { return nil }
            guard case .http(let http) = settings.probe else { return "\(failure)" }
            return "\(http.method) \(http.path): \(failure)"
        } catch {
            return "\(error)"
        }
    }
}
