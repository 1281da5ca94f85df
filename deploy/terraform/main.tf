# The containers are kept as JSON, so that `egret inject` can add itself to them when they are changed:
#
#   egret inject --image … --policy-secret ARN < containers.json > containers.egret.json
#
# Terraform itself runs nothing, and a plan shows what is there.

resource "aws_ecs_task_definition" "shop" {
  family                   = "shop"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc" # egret listens on the loopback that the task's containers share
  cpu                      = 512
  memory                   = 1024
  execution_role_arn       = var.execution_role_arn # has to be allowed to read the policy's parameter
  container_definitions    = file("${path.module}/containers.egret.json")
}

variable "execution_role_arn" {
  type = string
}
