# The same as a periodic job of Nomad's (https://developer.hashicorp.com/nomad/docs/job-specification/periodic): one allocation a minute.
job "shardgate-monitor" {
  datacenters = ["*"]
  type        = "batch"

  periodic {
    crons            = ["* * * * *"]
    prohibit_overlap = true
  }

  group "monitor" {
    # Findings (exit code 1) and nodes that cannot be asked (2) fail the allocation; the next minute looks again.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "look" {
      driver = "exec"

      config {
        command = "/usr/bin/shardgatectl"
        args = [
          "monitor",
          "--lock",
          "--metrics-file", "${NOMAD_ALLOC_DIR}/shardgate-monitor.prom",
        ]
      }

      # The agent of the client that it runs on; the token comes from Nomad's Consul integration.
      consul {}

      env {
        SHARDGATE_ENVIRONMENT = "prod"
        CONSUL_HTTP_ADDR      = "${attr.unique.network.ip-address}:8500"
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
