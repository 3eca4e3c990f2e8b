"""Ray: the cluster that stages run on.

folders.py      where the Rays that are started here keep their files
connection.py   connect to Ray or start it, check its resources
local_ray.py    watch over a Ray that was started here
reservations.py free what a dead controller of a training had reserved
actors.py       map items over a pool of actors
jobs_api.py     client of the Jobs API: token, versions, retries of the connection
package.py      what travels with a job: code and configuration, never data
job.py          submit one job unless it exists, follow it to its end
"""
