// egret beside every container of a Fargate task:  task.addExtension(new Egret(image, policy)).
// Add it last: it only knows the containers that are there.

import { Capability, ContainerDependencyCondition, LinuxParameters } from 'aws-cdk-lib/aws-ecs';
import type { ContainerImage, ITaskDefinitionExtension, LogDriver, Secret, TaskDefinition } from 'aws-cdk-lib/aws-ecs';
import { Duration } from 'aws-cdk-lib';

const PROXY = 'http://127.0.0.1:3128';
const DIRECT = 'localhost,127.0.0.1,::1,169.254.170.2,169.254.170.23';
// As `egret env` prints them: clients read one case or the other.
export const VARIABLES: Record<string, string> = {
  HTTP_PROXY: PROXY, http_proxy: PROXY, HTTPS_PROXY: PROXY, https_proxy: PROXY,
  NO_PROXY: DIRECT, no_proxy: DIRECT, NODE_USE_ENV_PROXY: '1',
};

export class Egret implements ITaskDefinitionExtension {
  image: ContainerImage;
  policy: Secret;
  logging?: LogDriver;

  constructor(image: ContainerImage, policy: Secret, logging?: LogDriver) {
    this.image = image;
    this.policy = policy;
    this.logging = logging;
  }

  extend(task: TaskDefinition): void {
    const apps = [...task.node.children].filter((child: any) => child.addContainerDependencies);
    const linuxParameters = new LinuxParameters(task, 'EgretLinux');
    linuxParameters.dropCapabilities(Capability.ALL);
    const egret = task.addContainer('egret', {
      image: this.image,
      essential: true,
      user: '65534:65534',
      readonlyRootFilesystem: true,
      linuxParameters,
      secrets: { EGRET_POLICY: this.policy },
      // The image has no shell, and ECS reads no HEALTHCHECK of an image.
      healthCheck: {
        command: ['CMD', '/egret', 'health'],
        interval: Duration.seconds(5), timeout: Duration.seconds(2), retries: 3, startPeriod: Duration.seconds(10),
      },
      stopTimeout: Duration.seconds(30),
      logging: this.logging,
    });
    for (const app of apps as any[]) {
      for (const [name, value] of Object.entries(VARIABLES)) app.addEnvironment(name, value);
      app.addContainerDependencies({ container: egret, condition: ContainerDependencyCondition.HEALTHY });
    }
  }
}
