// What the configuration says of health, for those who judge it.

import Configuration
import Health
import Primitives

extension HealthSettings {
    init(_ configured: Configuration.Health) {
        self.init()
        active = configured.active
        switch configured.type {
        case .tcp: probe = .tcp
        case .http:
            var http = HTTPProbe()
            http.method = configured.method.rawValue
            http.path = configured.path
            http.headers = configured.headers.map { HTTPProbe.Field(name: $0.name, value: $0.value) }
            http.expect = configured.expect.ranges
            http.expectBody = configured.expectBody
            probe = .http(http)
        }
        interval = configured.interval
        warningInterval = configured.warningInterval
        downInterval = configured.downInterval
        timeout = configured.timeout
        failures = configured.failures
        successes = configured.successes
        cooldown = configured.cooldown
        cooldownMax = configured.cooldownMax
        maxEjected = configured.maxEjected
        quorum = Quorum(configured.quorum)
    }
}
